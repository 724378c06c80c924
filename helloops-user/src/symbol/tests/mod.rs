//! Symbolizes real stacks: this process's own, and those of compiled victims.
