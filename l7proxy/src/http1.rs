//! HTTP/1: heads and how bodies are delimited, as strict as a policy point must be.
//!
//! Recipients that are lenient in different ways are how requests are smuggled: what one takes for the end of a
//! request is the middle of it for another. So everything that RFC 9112 leaves to the recipient, or that known servers
//! read in two ways, is refused here.

mod chunked;
mod exchange;
mod fields;
mod forward;
mod framing;
mod head;
mod response;

pub(crate) use chunked::is_never_in_trailers;
pub(crate) use exchange::INTERIM_MAX;
pub(crate) use forward::{check_effect, is_never_asked_for};
pub(crate) use head::{is_authority, is_same};

pub use chunked::{ChunkError, Chunked, Progress};
pub use exchange::{Broken, Exchange, FromClient, Pass};
pub use forward::{EffectError, write_request};
pub use framing::{BodyLength, FramingError};
pub use head::{HeadError, Limits, Parsed, RequestHead, Target, parse_request};
pub use response::{Asked, Follows, ResponseHead, parse_response};
