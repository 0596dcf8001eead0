//! What cross-origin answers mirror of a request (Fetch standard, CORS protocol).

use std::borrow::Cow;

use super::query::owned;

/// What CORS answers mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors<'a> {
    /// `origin`.
    pub origin: Option<Cow<'a, [u8]>>,
    /// `access-control-request-headers`.
    pub request_headers: Option<Cow<'a, [u8]>>,
}

impl Cors<'_> {
    /// The same, kept beyond its request.
    pub(crate) fn into_owned(self) -> Cors<'static> {
        Cors {
            origin: self.origin.map(owned),
            request_headers: self.request_headers.map(owned),
        }
    }
}
