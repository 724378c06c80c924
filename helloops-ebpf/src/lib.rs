//! What crosses the boundary between HelloOps's BPF programs and its user space.
#![no_std]

pub mod abi;
