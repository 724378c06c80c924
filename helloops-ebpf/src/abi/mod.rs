//! The kernel/user ABI: every type that crosses the boundary, defined once.
