//! The protocol machines, without I/O.
