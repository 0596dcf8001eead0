//! What the plugin configuration adds to the context of each request.

use std::rc::Rc;

use super::flagd::{EvaluationContext, JsonValue, Members};
use super::request::OfrepRequest;
use super::settings::AddedContext;

/// What is added to contexts.
pub struct ContextAdditions {
    fixed: Vec<(Rc<str>, JsonValue)>,
    /// Names of header fields in lower case, and the members that their values become.
    headers: Vec<(Vec<u8>, String)>,
}

impl ContextAdditions {
    /// Those of these settings.
    pub fn new(settings: &AddedContext) -> Self {
        let fixed = settings.fixed.iter().filter_map(|(name, value)| {
            let value = JsonValue::read(value.to_string().as_bytes()).ok()?;
            Some((name.as_str().into(), value))
        });
        let headers = settings.headers.iter();
        Self {
            fixed: fixed.collect(),
            headers: headers
                .map(|(header, name)| (header.to_ascii_lowercase().into_bytes(), name.clone()))
                .collect(),
        }
    }

    /// Names of the header fields that go into contexts.
    pub fn fields(&self) -> Vec<&[u8]> {
        let headers = self.headers.iter();
        headers.map(|(field, _)| field.as_slice()).collect()
    }

    /// What is added to the context of a request.
    pub fn of(&self, request: &OfrepRequest<'_>) -> Members {
        let mapped = request.mapped.iter().filter_map(|(place, value)| {
            let (_, name) = self.headers.get(*place)?;
            Some((name.as_str(), String::from_utf8_lossy(value)))
        });
        let mapped: Vec<_> = mapped.collect();
        let mapped = mapped.iter().map(|(name, value)| (*name, value.as_ref()));
        EvaluationContext::additions(&self.fixed, mapped)
    }
}
