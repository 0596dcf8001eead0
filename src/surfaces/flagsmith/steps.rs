//! What is decided of a request, with what it owes and what it takes along.

use super::answers::FlagsmithAnswer;
use super::document::FlagsmithRead;
use super::engine::IdentityRequest;
use super::keys::EdgeReader;
use super::request::FlagsmithRequest;
use super::surface::{Flagsmith, FlagsmithCarried};
use crate::http::{ETag, Response};
use crate::surfaces::{Decided, Receipt, Step};

/// Whoever answers: with what is known of the current version.
pub(super) struct Asker<'r, 'q> {
    pub request: &'r FlagsmithRequest<'q>,
    pub reader: EdgeReader,
    pub identity: Option<IdentityRequest<'static>>,
    pub bytes: usize,
}

pub(super) fn answered<'r>(
    request: &'r FlagsmithRequest<'_>,
    answer: FlagsmithAnswer,
    reader: Option<EdgeReader>,
) -> Decided<'r, Flagsmith> {
    replied(answer.response(request), answer, reader)
}

pub(super) fn not_modified<'r>(asker: &Asker<'r, '_>, etag: ETag) -> Decided<'r, Flagsmith> {
    let response = FlagsmithAnswer::not_modified(asker.request, etag);
    replied(response, FlagsmithAnswer::NotModified, Some(asker.reader))
}

pub(super) fn replied(
    response: Response<'_>,
    answer: FlagsmithAnswer,
    reader: Option<EdgeReader>,
) -> Decided<'_, Flagsmith> {
    let receipt = Receipt {
        answer,
        tenant: reader.map(|reader| reader.environment),
        billed: reader.is_some_and(|reader| reader.is_counted) && answer.is_served(),
    };
    Decided {
        step: Step::Reply(response, receipt),
        carried: FlagsmithCarried::default(),
        reads_alone: false,
    }
}

pub(super) fn waits<'r>(asker: Asker<'r, '_>, read: FlagsmithRead) -> Decided<'r, Flagsmith> {
    Decided {
        step: Step::Read(read),
        carried: FlagsmithCarried {
            reader: Some(asker.reader),
            identity: asker.identity,
            bytes: asker.bytes,
        },
        reads_alone: false,
    }
}
