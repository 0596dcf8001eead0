//! Sends answers.

use super::abi;
use crate::reply::{Reply, whole};

/// Sends an answer in the effective context.
pub fn respond(reply: &Reply<'_>) -> Result<(), abi::Status> {
    // Shown in access logs as RESPONSE_CODE_DETAILS.
    abi::send_local_response(
        reply.answer.status(),
        reply.answer.label(),
        &reply.headers(),
        reply.body.bytes(),
    )
}

/// Answers with something that is not about flag definitions.
pub fn respond_plainly(status: u16, content_type: &str, body: &[u8]) -> Result<(), abi::Status> {
    let headers = [
        Some(("content-type", whole(content_type.as_bytes()))),
        Some(("cache-control", whole(b"no-store"))),
    ];
    abi::send_local_response(status, "flag_definitions_health", &headers, body)
}
