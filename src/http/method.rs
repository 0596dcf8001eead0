//! Request methods (RFC 9110 §9.1: case-sensitive).

/// Request methods that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// OPTIONS.
    Options,
    /// Any other.
    Other,
}

impl Method {
    /// Reads a `:method`.
    pub(crate) fn parse(value: &[u8]) -> Self {
        match value {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}
