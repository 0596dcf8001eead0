//! What standards say of a request and of an answer: RFC 9110, Fetch (CORS) and WHATWG URL (query). No product is known here.

mod accept_encoding;
mod cors;
mod date;
mod etag;
mod grpc;
mod if_none_match;
mod method;
pub(crate) mod query;
mod response;

pub use accept_encoding::AcceptEncoding;
pub use cors::{Cors, CorsProfile};
pub use date::{imf_fixdate, rfc3339_rounded_up};
pub use etag::ETag;
pub use grpc::is_grpc;
pub use if_none_match::{Candidate, IfNoneMatch};
pub use method::Method;
pub use response::{Body, Field, Late, Response, Value, whole};
