//! What is decided of a request, with what it owes and what it takes along.

use super::answers::OfrepAnswer;
use super::document::OfrepRead;
use super::flagd::{EvaluationContext, Selector};
use super::repeated::RepeatedName;
use super::request::OfrepRequest;
use super::surface::Ofrep;
use crate::http::Response;
use crate::surfaces::{Decided, Receipt, Step};
use crate::tenant::Tenant;

/// What is asked for.
#[derive(Clone)]
pub(super) struct Chosen {
    pub selector: Selector,
    /// The selection; `None`: no flag is in it.
    pub tenant: Option<Tenant>,
}

/// What a request that waits takes along: first what it asks for, then for whom as well.
#[derive(Default)]
pub struct OfrepCarried {
    pub(super) chosen: Option<Chosen>,
    pub(super) context: EvaluationContext,
    /// What the context takes at most, in bytes.
    pub(super) bytes: usize,
    pub(super) name: Option<RepeatedName>,
}

/// Whoever is answered: with what is known of the current version.
pub(super) struct Asker<'r, 'q> {
    pub request: &'r OfrepRequest<'q>,
    pub chosen: Chosen,
    pub context: EvaluationContext,
    pub bytes: usize,
    /// What the request is remembered by.
    pub name: Option<RepeatedName>,
}

pub(super) fn answered<'r>(
    request: &'r OfrepRequest<'_>,
    answer: OfrepAnswer,
    selection: Option<Tenant>,
) -> Decided<'r, Ofrep> {
    replied(answer.response(request), answer, selection)
}

pub(super) fn replied(
    response: Response<'_>,
    answer: OfrepAnswer,
    selection: Option<Tenant>,
) -> Decided<'_, Ofrep> {
    let receipt = Receipt {
        answer,
        tenant: selection,
        billed: false,
    };
    Decided {
        step: Step::Reply(response, receipt),
        carried: OfrepCarried::default(),
        reads_alone: false,
    }
}

pub(super) fn waits<'r>(asker: Asker<'r, '_>, read: OfrepRead) -> Decided<'r, Ofrep> {
    Decided {
        step: Step::Read(read),
        carried: OfrepCarried {
            chosen: Some(asker.chosen),
            context: asker.context,
            bytes: asker.bytes,
            name: asker.name,
        },
        reads_alone: false,
    }
}
