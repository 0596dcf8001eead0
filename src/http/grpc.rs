//! Requests that say they are gRPC.

/// What media types of gRPC begin with.
const GRPC: &[u8] = b"application/grpc";

/// Whether this `content-type` is one of gRPC's, gRPC-Web's included. Envoy and its gRPC filters change answers to such
/// requests: the body may go into a header field. More is taken for gRPC than Envoy takes, which compares case by case; no
/// client of ours sends any of it.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .get(..GRPC.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}
