//! What reading a team's definitions came to.

use std::rc::Rc;

use super::encoding::{self, DecodeError, Decoded, Malformed};
use super::latch::{QuotaEnd, Suffix, latched};
use super::object::Object;
use super::pair::{Need, Stored};
use crate::documents::Document;
use crate::http::ETag;
use crate::redis::{Failure, Reply};
use crate::surfaces::posthog::definitions::settings::Definitions;

/// What the read came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The version that was held is current.
    Unchanged(ETag),
    /// The current version. Whoever answers with it, now or later, shares it.
    Payload(Rc<Payload>),
    /// Either of these, while a quota period's end lies ahead ([`super::latch`]).
    Pending(Pending),
    /// Redis has no payload, and there is an object store to ask.
    InObjectStore(Object),
    /// There is nothing to answer with.
    Absent(Absent),
}

/// The current version, under an ETag that no client may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What it is kept under.
    pub etag: ETag,
    /// The end of the quota period.
    pub end: QuotaEnd,
    /// `None`: the version that was held is current.
    pub payload: Option<Rc<Payload>>,
}

/// A payload, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its entity tag.
    pub etag: ETag,
    /// Whether the tag stood beside the payload. PostHog writes the two one after the other, and the object
    /// store has none; then it is computed.
    pub etag_stored: bool,
    /// The JSON text, as stored.
    pub text: Rc<Vec<u8>>,
    /// Whether answering it is billed.
    pub billable: bool,
}

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// A true miss.
    Missing,
    /// There is one, and it cannot be read.
    Undecodable(DecodeError),
    /// There is one above `definitions.max_bytes`.
    TooBig,
    /// It is not known whether the object store has one.
    ObjectStore,
    /// It is not known whether Redis has one.
    Failed(Failure),
}

impl From<DecodeError> for Absent {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooBig => Self::TooBig,
            malformed => Self::Undecodable(malformed),
        }
    }
}

impl Document for Payload {
    fn etag(&self) -> &ETag {
        &self.etag
    }

    fn etag_is_stored(&self) -> bool {
        self.etag_stored
    }

    fn text(&self) -> &Rc<Vec<u8>> {
        &self.text
    }
}

impl Payload {
    /// Decodes a payload of at most `max_bytes` bytes of text. `check` says whether a text is billed, `None` where it is no
    /// payload ([`flags::is_billable`](super::flags::is_billable)).
    ///
    /// ```
    /// use flag_definitions_filter::surfaces::posthog::definitions::{Absent, Payload, flags::is_billable};
    /// let payload = Payload::read(None, None, br#"{"flags": [{"key": "new"}]}"#, 1_000, is_billable).unwrap();
    /// assert!(payload.billable && !payload.etag_stored);
    /// let missing = Payload::read(None, None, b"__missing__", 1_000, is_billable);
    /// assert_eq!(missing, Err(Absent::Missing));
    /// let cut = Payload::read(None, None, br#"{"flags": [{"key": "ne"#, 1_000, is_billable);
    /// assert!(matches!(cut, Err(Absent::Undecodable(_))), "nobody is given that");
    /// ```
    ///
    /// # Errors
    /// When it is too big, cannot be read, or is PostHog's note that there is none.
    pub fn read(
        etag: Option<ETag>,
        suffix: Option<&Suffix>,
        stored: &[u8],
        max_bytes: usize,
        check: impl FnOnce(&[u8]) -> Option<bool>,
    ) -> Result<Self, Absent> {
        let mut text = match encoding::decode(stored, max_bytes) {
            Ok(Decoded::Text(text)) => text.into_owned(),
            // PostHog's service answers 200 `null`, an accident of its reader.
            Ok(Decoded::Missing) => return Err(Absent::Missing),
            Err(error) => return Err(error.into()),
        };
        // Nobody is given a broken text, and nobody's ETag rests on it.
        let Some(billable) = check(&text) else {
            return Err(DecodeError::from(Malformed::Json).into());
        };
        // It may be kept for long: no more than its bytes.
        text.shrink_to_fit();
        let stored = etag.and_then(|etag| latched(&etag, suffix));
        let etag_stored = stored.is_some();
        let computed = || {
            let etag = ETag::of_text(&text);
            // It is short enough for any suffix.
            latched(&etag, suffix).unwrap_or(etag)
        };
        Ok(Self {
            etag: stored.unwrap_or_else(computed),
            etag_stored,
            billable,
            text: Rc::new(text),
        })
    }
}

impl Outcome {
    /// The current version, and the end of a quota period that lies ahead.
    pub fn current(payload: Rc<Payload>, pending: Option<QuotaEnd>) -> Self {
        match pending {
            None => Self::Payload(payload),
            Some(end) => Self::Pending(Pending {
                etag: payload.etag.clone(),
                end,
                payload: Some(payload),
            }),
        }
    }

    /// The current version, and the length of its text where that was read. `None`: there is none.
    pub fn version(&self) -> Option<(&ETag, Option<usize>)> {
        match self {
            Self::Unchanged(etag) => Some((etag, None)),
            Self::Payload(payload) => Some((&payload.etag, Some(payload.text.len()))),
            Self::Pending(pending) => {
                let length = pending.payload.as_ref().map(|payload| payload.text.len());
                Some((&pending.etag, length))
            }
            Self::InObjectStore(_) | Self::Absent(_) => None,
        }
    }

    /// Reads the reply to [`Need::command`]. `check`: see [`Payload::read`].
    pub fn of(
        need: &Need,
        reply: Result<Reply<'_>, Failure>,
        settings: &Definitions,
        check: impl FnOnce(&[u8]) -> Option<bool>,
    ) -> Self {
        let missing = |period| match settings.object_store {
            Some(_) => Self::InObjectStore(Object {
                team: need.team,
                period,
            }),
            None => Self::Absent(Absent::Missing),
        };
        match Stored::of(&reply) {
            Stored::Same { etag, pending } if need.held.is_some() => match pending {
                None => Self::Unchanged(etag),
                Some(end) => Self::Pending(Pending {
                    etag,
                    end,
                    payload: None,
                }),
            },
            // Nothing was held that it could be the same as.
            Stored::Same { .. } => Self::Absent(Absent::Failed(Failure::Malformed)),
            Stored::Full {
                etag,
                period,
                stored,
            } => match Payload::read(
                etag,
                period.suffix(),
                stored,
                settings.max_text_bytes(),
                check,
            ) {
                Ok(payload) => Self::current(Rc::new(payload), period.pending()),
                Err(Absent::Missing) => missing(period),
                Err(absent) => Self::Absent(absent),
            },
            Stored::Missing { period } => missing(period),
            Stored::Failed(Failure::TooBig) => Self::Absent(Absent::TooBig),
            Stored::Failed(failure) => Self::Absent(Absent::Failed(failure)),
        }
    }
}
