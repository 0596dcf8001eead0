//! An answer as data: status, content, validators, and the fields that CORS asks for.

use std::borrow::Cow;
use std::rc::Rc;

use super::{Cors, CorsProfile, ETag};

/// The content of an answer. A text that is kept is shared with whoever keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A fixed text, maybe empty.
    Fixed(&'static str),
    /// A text, such as a document's.
    Text(Rc<Vec<u8>>),
    /// Its gzip form (RFC 1952).
    Gzip(Rc<Vec<u8>>),
}

impl Body {
    /// Its bytes, as they are sent.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Fixed(text) => text.as_bytes(),
            Self::Text(bytes) | Self::Gzip(bytes) => bytes,
        }
    }
}

/// What a host changes in an answer that it sends itself, so that it has to be put right when it is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Nothing.
    Nothing,
    /// The type of an answer without a body is taken off.
    ContentType(&'static str),
    /// To a request that says it is gRPC: the status becomes 200, the body goes into `grpc-message`. This is the status.
    Status(u16),
}

/// One answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// HTTP status code.
    pub status: u16,
    /// Why this answer is given, in one word: access logs show it as `RESPONSE_CODE_DETAILS`.
    pub reason: &'static str,
    /// Content, maybe empty.
    pub body: Body,
    /// `content-type`.
    pub content_type: Option<&'static str>,
    /// `allow`, of a 405.
    pub allow: Option<&'static str>,
    /// Opaque part of `etag`. The tag is sent as a weak one, so it is the same for each coding of the content.
    pub etag: Option<ETag>,
    /// `retry-after`: whole seconds (RFC 9110 §10.2.3).
    pub retry_after: Option<String>,
    /// Whether the content may be in gzip form, now or another time: `vary` says so, on a 304 as well (RFC 9110 §15.4.5).
    pub varies_by_encoding: bool,
    /// What the host will have changed.
    pub late: Late,
    /// Header fields that only some answers of one surface have. They come last.
    pub extra: Vec<(&'static str, Cow<'static, [u8]>)>,
    /// What the request showed for CORS.
    pub cors: &'a Cors<'a>,
    /// What the surface allows to other origins.
    pub profile: &'static CorsProfile,
}

/// A header field's value, in up to three pieces, so that nothing has to be put together before it is sent.
pub type Value<'a> = [&'a [u8]; 3];

/// A value of one piece.
pub const fn whole(value: &[u8]) -> Value<'_> {
    [value, b"", b""]
}

/// Name and value of a header field.
pub type Field<'a> = (&'a str, Value<'a>);

impl Response<'_> {
    /// The entity tag of a 304, or of a 200 with a document, to a client that is no browser: nothing else but the value of one
    /// further field distinguishes its header fields from those of the last such answer of its surface. `None` for any other.
    pub fn frequent(&self) -> Option<&ETag> {
        let no_cors = self.cors.origin.is_none() && self.cors.request_headers.is_none();
        self.etag
            .as_ref()
            .filter(|_| no_cors && self.extra.len() <= 1)
    }

    /// Header fields, in order; of those that some answers have only, `None`. `content-length` is the host's to add. The
    /// origin is mirrored.
    pub fn headers(&self) -> Vec<Option<Field<'_>>> {
        let coding = matches!(self.body, Body::Gzip(_)).then_some("gzip");
        let etag = self.etag.as_ref().map(ETag::as_bytes);
        let caching = etag.and(self.profile.cache_control);
        let vary = match self.varies_by_encoding {
            true => self.profile.vary_by_encoding,
            false => self.profile.vary,
        };
        let text = |name, value: Option<&'static str>| field(name, value.map(str::as_bytes));
        let mut fields = vec![
            text("content-type", self.content_type),
            text("allow", self.allow),
            field(
                "retry-after",
                self.retry_after.as_deref().map(str::as_bytes),
            ),
            text("content-encoding", coding),
            etag.map(|etag| ("etag", [b"W/\"".as_slice(), etag, b"\""])),
            text("cache-control", caching),
            field("access-control-allow-origin", self.cors.origin.as_deref()),
            text(
                "access-control-allow-credentials",
                self.profile.allows_credentials.then_some("true"),
            ),
            match self.profile.methods {
                Some(methods) => text("access-control-allow-methods", Some(methods)),
                None => field(
                    "access-control-allow-methods",
                    self.cors.request_method.as_deref(),
                ),
            },
            field(
                "access-control-allow-headers",
                self.cors.request_headers.as_deref(),
            ),
            text("vary", Some(vary)),
        ];
        let extra = self.extra.iter();
        fields.extend(extra.map(|(name, value)| Some((*name, whole(value)))));
        fields
    }
}

fn field<'a>(name: &'static str, value: Option<&'a [u8]>) -> Option<Field<'a>> {
    Some((name, whole(value?)))
}
