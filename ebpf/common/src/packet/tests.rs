//! The parser over slices: what it finds, what it refuses, and that no input makes it panic.
