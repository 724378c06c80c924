//! Wires all rooms into one running instance.
