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
    /// `access-control-request-method`, where the surface mirrors it.
    pub request_method: Option<Cow<'a, [u8]>>,
}

impl Cors<'_> {
    /// The same, kept beyond its request.
    pub(crate) fn into_owned(self) -> Cors<'static> {
        Cors {
            origin: self.origin.map(owned),
            request_headers: self.request_headers.map(owned),
            request_method: self.request_method.map(owned),
        }
    }
}

/// What a surface tells browsers of other origins, whatever the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorsProfile {
    /// `access-control-allow-methods`. `None`: the method that is asked for is mirrored.
    pub methods: Option<&'static str>,
    /// Whether `access-control-allow-credentials` says so.
    pub allows_credentials: bool,
    /// `cache-control` of what has an entity tag.
    pub cache_control: Option<&'static str>,
    /// `vary`: what every answer depends on.
    pub vary: &'static str,
    /// The same, where content may be in gzip form.
    pub vary_by_encoding: &'static str,
}
