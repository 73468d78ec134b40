//! The proxy that flows are redirected to: what a request is, read so that what is judged is what is forwarded.
//!
//! [`http1`] is sans-I/O: bytes go in, what they mean comes out. [`relay`] carries one connection: it asks whoever hosts
//! it about each request, forwards, and answers what is denied; [`http2`] does so for connections of HTTP/2. [`budget`] says
//! how many records are wanted of it. No rules here; the policy engine decides.

pub mod answer;
pub mod budget;
pub mod http1;
pub mod http2;
pub mod path;
pub mod relay;
