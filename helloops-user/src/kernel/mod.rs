//! Loads and attaches the BPF programs, and reads what they report. The only room that names aya.
