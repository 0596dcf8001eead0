//! A token, and the request that carries it.

use std::convert::Infallible;
use std::fmt;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::SurfaceRequest;
use flag_definitions_filter::surfaces::posthog::answers::Answer;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_filter::surfaces::posthog::directory::access::{
    self, Checked, Directory, Half,
};
use flag_definitions_filter::surfaces::posthog::request::{Request, Token};
use serde::Serialize;

use super::StateView;
use crate::commands::describe::{Kind, SourcedRecord, short};
use crate::error::TokenInputError;
use crate::redis::published::PublishedSnapshot;

/// What standard input held.
#[derive(Debug)]
pub enum TokenInput {
    /// One token of any kind, by its hash, and the request that has it as its bearer.
    Alone(Sha256Hash, Box<Request<'static>>),
    /// The request that a client would send.
    Both(Box<Request<'static>>),
}

impl TokenInput {
    /// Takes the lines apart.
    ///
    /// # Errors
    /// When there is no token, or more than asked for.
    pub fn parse(input: &[u8], credential: bool) -> Result<Self, TokenInputError> {
        let lines = input.strip_suffix(b"\n").unwrap_or(input);
        let mut lines = lines.split(|byte| *byte == b'\n');
        let mut line = || {
            let line = lines.next()?;
            Some(line.strip_suffix(b"\r").unwrap_or(line))
        };
        let first = line().unwrap_or_default();
        let input = if credential {
            let second = line().filter(|line| !line.is_empty());
            let second = second.ok_or(TokenInputError::NoCredential)?;
            Self::Both(Box::new(request(Some(first), second)))
        } else if first.is_empty() {
            return Err(TokenInputError::NoToken);
        } else {
            let hash = Sha256Hash::of(first);
            Self::Alone(hash, Box::new(request(None, first)))
        };
        match line() {
            None => Ok(input),
            Some(_) => Err(TokenInputError::TooManyLines),
        }
    }
}

/// The request as the filter reads it.
fn request(token: Option<&[u8]>, bearer: &[u8]) -> Request<'static> {
    let authorization = [b"Bearer ", bearer].concat();
    let mut headers = vec![
        (&b":method"[..], &b"GET"[..]),
        (b"authorization", authorization.as_slice()),
    ];
    if let Some(token) = token {
        headers.push((b"x-posthog-project-api-key", token));
    }
    Request::parse(headers).into_owned()
}

/// What is known.
#[derive(Debug, Serialize)]
pub struct TokenView {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Found>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Found>,
    /// `null`: a project token alone makes no request.
    decision: Option<Decision>,
    published: StateView,
}

/// What is published under a hash.
#[derive(Debug, Serialize)]
struct Found {
    sha256: String,
    /// `null`: nothing is known of it.
    kind: Option<&'static str>,
    stream_id: Option<String>,
    description: String,
}

/// What a filter decides.
#[derive(Debug, Serialize)]
struct Decision {
    allowed: bool,
    /// The team whose definitions are read.
    team: Option<u32>,
    /// How the request proved that it may.
    method: Option<&'static str>,
    /// Status of the answer; 200 may become 304.
    status: u16,
    /// As in the filter's metrics and logs.
    reason: &'static str,
    /// PostHog's words.
    detail: Option<String>,
    /// Whether it rests on nothing being known, so that settings decide.
    unknown: bool,
}

impl TokenView {
    /// Judges as a filter does whose snapshot is fresh.
    pub fn of(input: &TokenInput, published: &PublishedSnapshot, state: StateView) -> Self {
        let (token, credential, decision) = match input {
            TokenInput::Alone(hash, request) => {
                let found = Found::of(hash, published, &state);
                // A personal key or project token alone is half a request.
                let decision = matches!(
                    published.find(hash),
                    Some((Record::TeamSecret(_) | Record::ProjectSecret { .. }, _))
                )
                .then(|| Decision::of(request, published));
                (Some(found), None, decision)
            }
            TokenInput::Both(request) => {
                let found = |hash: &Sha256Hash| Found::of(hash, published, &state);
                let token = match &request.token {
                    Token::Named(token) => Some(found(token.hash())),
                    _ => None,
                };
                let bearer = request.bearer.as_ref();
                let bearer = bearer.map(|bearer| found(&bearer.hash));
                (token, bearer, Some(Decision::of(request, published)))
            }
        };
        Self {
            token,
            credential,
            decision,
            published: state,
        }
    }

    /// Whether the request is allowed; where there is none, whether the token is known.
    pub fn is_allowed(&self) -> bool {
        match &self.decision {
            Some(decision) => decision.allowed,
            None => self.token.as_ref().is_some_and(Found::is_there),
        }
    }
}

impl Found {
    fn of(hash: &Sha256Hash, published: &PublishedSnapshot, state: &StateView) -> Self {
        let found = published.record(hash);
        let found = found.and_then(|(record, id)| Some((SourcedRecord::decode(record)?, id)));
        Self {
            sha256: short(hash),
            kind: found.as_ref().map(|(record, _)| record.kind().name()),
            stream_id: found.as_ref().map(|(_, id)| id.to_string()),
            description: found.map_or_else(
                || "nothing is known of it".to_owned(),
                |(record, id)| format!("{record}, as of {}", state.ago(id)),
            ),
        }
    }

    fn is_there(&self) -> bool {
        self.kind.is_some_and(|kind| kind != Kind::Tombstone.name())
    }
}

/// What is published, as the filter's rules look into it.
struct Looked<'a> {
    published: &'a PublishedSnapshot,
    found: Option<Record>,
}

impl Directory for Looked<'_> {
    type Error = Infallible;

    fn find(&mut self, _: Half, hash: &Sha256Hash) -> Result<Option<&Record>, Infallible> {
        self.found = self.published.find(hash).map(|(record, _)| record);
        Ok(self.found.as_ref())
    }
}

impl Decision {
    fn of(request: &Request, published: &PublishedSnapshot) -> Self {
        let mut directory = Looked {
            published,
            found: None,
        };
        let checked = match access::check(request, &mut directory) {
            Ok(checked) => checked,
            Err(never) => match never {},
        };
        match checked {
            Checked::Accepted(team, method) => Self {
                allowed: true,
                team: Some(team.0),
                method: Some(method.label()),
                status: Answer::Definitions.status(),
                reason: Answer::Definitions.label(),
                detail: None,
                unknown: false,
            },
            Checked::Incomplete(answer) | Checked::Refused(answer) => Self::refused(answer, false),
            Checked::Unknown(_, answer) | Checked::Impossible(answer) => {
                Self::refused(answer, true)
            }
        }
    }

    fn refused(answer: Answer, unknown: bool) -> Self {
        let body = answer.body();
        // Some bodies are plain text.
        let json = serde_json::from_str::<serde_json::Value>(body).ok();
        let detail = json.and_then(|json| Some(json.get("detail")?.as_str()?.to_owned()));
        Self {
            allowed: false,
            team: None,
            method: None,
            status: answer.status(),
            reason: answer.label(),
            detail: Some(detail.unwrap_or_else(|| body.to_owned())),
            unknown,
        }
    }
}

impl fmt::Display for TokenView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(found) = &self.token {
            writeln!(f, "token       {}: {}", found.sha256, found.description)?;
        }
        if let Some(found) = &self.credential {
            writeln!(f, "credential  {}: {}", found.sha256, found.description)?;
        }
        if let Some(decision) = &self.decision {
            writeln!(f, "{decision}")?;
        }
        write!(f, "{}", self.published)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(team), Some(method)) = (self.team, self.method) {
            return write!(
                f,
                "allowed: reads the definitions of team {team} ({method})"
            );
        }
        let Self { status, reason, .. } = self;
        let detail = self.detail.as_deref().unwrap_or_default();
        write!(f, "refused: {status} {reason}: {detail}")?;
        if self.unknown {
            f.write_str(
                "\n  with unknown_credential: forward (or read_through) the upstream decides instead",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (input, credential, lines) in [
            ("a", false, true),
            ("a\n", false, true),
            ("a\r\n", false, true),
            ("a\nb", false, false),
            ("", false, false),
            ("\n", false, false),
            ("a\nb", true, true),
            ("a\r\nb\r\n", true, true),
            ("\nb\n", true, true),
            ("a\n", true, false),
            ("a\n\n", true, false),
            ("a\nb\nc", true, false),
        ] {
            let parsed = TokenInput::parse(input.as_bytes(), credential);
            assert_eq!(parsed.is_ok(), lines, "{input:?} {credential}");
        }
    }
}
