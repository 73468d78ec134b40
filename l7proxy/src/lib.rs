//! The core of the proxy that flows are redirected to: what a request is, read so that what is judged is what is
//! forwarded.
//!
//! Sans-I/O: bytes go in, what they mean comes out. No sockets, no clock, no rules; whoever drives a connection asks
//! the policy engine and forwards.

pub mod http1;
pub mod path;
