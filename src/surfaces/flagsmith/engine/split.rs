//! A document as a sequence of parts, none of them larger than [`MAX_ELEMENT`], so that reading can stop between any two.
//!
//! The outer objects and lists ([`Level`]) are walked here, and everything in them is checked to be JSON and handed over by its
//! range. What is inside of an element is its reader's.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::unfit::Unfit;

/// Longest element of a document, in bytes: a feature state, a top rule of a segment, a trait, or a member that is not
/// split. Also the longest run of blanks that is skipped at once.
pub const MAX_ELEMENT: usize = 256 << 10;

/// Deepest nesting of JSON that serde_json reads.
const MAX_DEPTH: usize = 127;

/// What is walked: an object or a list of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Document,
    Project,
    Segments,
    Segment,
    Rules,
    SegmentStates,
    States,
    Overrides,
    Override,
    OverrideStates,
    OverrideTraits,
}

/// A member of an object that is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
pub(super) enum Member {
    Id,
    ApiKey,
    Name,
    UpdatedAt,
    Project,
    FeatureStates,
    IdentityOverrides,
    Organisation,
    HideDisabledFlags,
    ServerKeyOnlyFeatureIds,
    Segments,
    Rules,
    Identifier,
    EnvironmentApiKey,
    CreatedDate,
    IdentityFeatures,
    IdentityTraits,
    IdentityUuid,
    DjangoId,
    #[serde(other)]
    Other,
}

impl Member {
    /// Its name in documents.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::ApiKey => "api_key",
            Self::Name => "name",
            Self::UpdatedAt => "updated_at",
            Self::Project => "project",
            Self::FeatureStates => "feature_states",
            Self::IdentityOverrides => "identity_overrides",
            Self::Organisation => "organisation",
            Self::HideDisabledFlags => "hide_disabled_flags",
            Self::ServerKeyOnlyFeatureIds => "server_key_only_feature_ids",
            Self::Segments => "segments",
            Self::Rules => "rules",
            Self::Identifier => "identifier",
            Self::EnvironmentApiKey => "environment_api_key",
            Self::CreatedDate => "created_date",
            Self::IdentityFeatures => "identity_features",
            Self::IdentityTraits => "identity_traits",
            Self::IdentityUuid => "identity_uuid",
            Self::DjangoId => "django_id",
            Self::Other => "a member",
        }
    }

    /// Its bit among those of [`Frame::seen`].
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl Level {
    /// Whether it is an object, not a list.
    const fn is_object(self) -> bool {
        matches!(
            self,
            Self::Document | Self::Project | Self::Segment | Self::Override
        )
    }

    /// What is walked below: as a member, or as each element (`None`).
    const fn below(self, member: Option<Member>) -> Option<Self> {
        Some(match (self, member) {
            (Self::Document, Some(Member::Project)) => Self::Project,
            (Self::Document, Some(Member::FeatureStates)) => Self::States,
            (Self::Document, Some(Member::IdentityOverrides)) => Self::Overrides,
            (Self::Project, Some(Member::Segments)) => Self::Segments,
            (Self::Segment, Some(Member::Rules)) => Self::Rules,
            (Self::Segment, Some(Member::FeatureStates)) => Self::SegmentStates,
            (Self::Override, Some(Member::IdentityFeatures)) => Self::OverrideStates,
            (Self::Override, Some(Member::IdentityTraits)) => Self::OverrideTraits,
            (Self::Segments, None) => Self::Segment,
            (Self::Overrides, None) => Self::Override,
            _ => return None,
        })
    }
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An object or a list begins.
    Enter(Level),
    /// It ends.
    Leave(Level),
    /// A member of the object, or an element of the list, that was entered last.
    Value(Level, Option<Member>, Range<usize>),
    /// Nothing yet: only blanks were skipped.
    Pause,
    /// The document was read to its end.
    End,
}

/// An object or a list that was entered and not left.
struct Frame {
    level: Level,
    /// The member or the index of the element that is being read.
    member: Option<Member>,
    index: usize,
    /// Members that came already.
    seen: u32,
    /// Whether something came already.
    started: bool,
}

/// Where reading is.
pub(super) struct Splitter {
    at: usize,
    frames: Vec<Frame>,
    entered: bool,
}

impl Splitter {
    /// At the beginning.
    pub(super) const fn new() -> Self {
        Self {
            at: 0,
            frames: Vec::new(),
            entered: false,
        }
    }

    /// Bytes that were read.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// Whether the object that was entered last had this member.
    pub(super) fn has(&self, member: Member) -> bool {
        self.frames
            .last()
            .is_some_and(|frame| frame.seen & member.bit() != 0)
    }

    /// Where reading is, as a path.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match frame.member {
                Some(member) => {
                    let dot = if path.is_empty() { "" } else { "." };
                    path.push_str(dot);
                    path.push_str(member.name());
                }
                None if !frame.level.is_object() => {
                    path.push_str(&format!("[{}]", frame.index));
                }
                None => {}
            }
        }
        path
    }

    fn unfit(&self, problem: impl Into<String>) -> Unfit {
        Unfit::new(self.path(), problem)
    }

    /// The next part.
    ///
    /// # Errors
    /// The document does not fit.
    pub(super) fn next(&mut self, text: &[u8]) -> Result<Part, Unfit> {
        if !self.skip_blanks(text) {
            return Ok(Part::Pause);
        }
        let next = text.get(self.at).copied();
        let Some(frame) = self.frames.last_mut() else {
            if self.entered {
                return match next {
                    None => Ok(Part::End),
                    Some(_) => Err(self.unfit("is followed by something")),
                };
            }
            self.entered = true;
            return self.enter(text, Level::Document);
        };
        let close = if frame.level.is_object() { b'}' } else { b']' };
        if next == Some(close) {
            self.at += 1;
            return Ok(self.leave());
        }
        if frame.started {
            if next != Some(b',') {
                return Err(self.unfit("is not JSON, expected a comma or the end"));
            }
            self.at += 1;
            frame.index += 1;
        }
        frame.started = true;
        frame.member = None;
        let level = frame.level;
        let member = match level.is_object() {
            true => Some(self.member(text)?),
            false => None,
        };
        self.settle(text)?;
        if let Some(below) = level.below(member) {
            return self.enter(text, below);
        }
        let range = self.value(text)?;
        self.at = range.end;
        Ok(Part::Value(level, member, range))
    }

    fn enter(&mut self, text: &[u8], level: Level) -> Result<Part, Unfit> {
        let (open, words) = match level.is_object() {
            true => (b'{', "does not fit, expected an object"),
            false => (b'[', "does not fit, expected a list"),
        };
        if text.get(self.at) != Some(&open) {
            return Err(self.unfit(words));
        }
        self.at += 1;
        self.frames.push(Frame {
            level,
            member: None,
            index: 0,
            seen: 0,
            started: false,
        });
        Ok(Part::Enter(level))
    }

    /// Leaves what was entered last. It is still there while the part is looked at: [`Self::has`].
    fn leave(&mut self) -> Part {
        let level = self
            .frames
            .last()
            .map_or(Level::Document, |frame| frame.level);
        Part::Leave(level)
    }

    /// Forgets what was left.
    pub(super) fn left(&mut self) {
        self.frames.pop();
    }

    /// The name of a member, up to its value.
    fn member(&mut self, text: &[u8]) -> Result<Member, Unfit> {
        self.settle(text)?;
        if text.get(self.at) != Some(&b'"') {
            return Err(self.unfit("is not JSON, expected the name of a member"));
        }
        let (member, end) = self.read::<Member>(text)?;
        self.at = end;
        let twice = match self.frames.last_mut() {
            Some(frame) => {
                frame.member = Some(member);
                let twice = frame.seen & member.bit() != 0 && member != Member::Other;
                frame.seen |= member.bit();
                twice
            }
            None => false,
        };
        if twice {
            return Err(self.unfit("is there twice"));
        }
        self.settle(text)?;
        if text.get(self.at) != Some(&b':') {
            return Err(self.unfit("is not JSON, expected a colon"));
        }
        self.at += 1;
        Ok(member)
    }

    /// The range of the value that begins here.
    fn value(&self, text: &[u8]) -> Result<Range<usize>, Unfit> {
        let (depth, end) = self.read::<Depth>(text)?;
        if self.frames.len() + depth.0 > MAX_DEPTH {
            return Err(self.unfit("nests too deep"));
        }
        Ok(self.at..end)
    }

    /// Reads what begins here, and says where it ends.
    fn read<'t, T: Deserialize<'t>>(&self, text: &'t [u8]) -> Result<(T, usize), Unfit> {
        let end = self.at.saturating_add(MAX_ELEMENT).min(text.len());
        let is_cut = end < text.len();
        let piece = text.get(self.at..end).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(piece).into_iter::<T>();
        match values.next() {
            Some(Ok(_)) if is_cut && values.byte_offset() == piece.len() => {
                Err(self.unfit("is too large"))
            }
            Some(Ok(value)) => Ok((value, self.at + values.byte_offset())),
            Some(Err(error)) if is_cut && error.is_eof() => Err(self.unfit("is too large")),
            Some(Err(_)) | None => Err(self.unfit("is not JSON that can be read")),
        }
    }

    /// Skips blanks inside of a part.
    fn settle(&mut self, text: &[u8]) -> Result<(), Unfit> {
        match self.skip_blanks(text) {
            true => Ok(()),
            false => Err(self.unfit("has too many blanks in it")),
        }
    }

    /// Skips blanks; `false` when there may be more.
    fn skip_blanks(&mut self, text: &[u8]) -> bool {
        let rest = text.get(self.at..).unwrap_or_default();
        let blanks = rest
            .iter()
            .take(MAX_ELEMENT)
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
            .count();
        self.at += blanks;
        blanks < MAX_ELEMENT
    }
}

/// How deep a value nests: 0 for what is neither list nor object. Reading it checks all of it as a parser of any JSON does:
/// texts, numbers, and the depth.
struct Depth(usize);

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DepthVisitor)
    }
}

struct DepthVisitor;

impl<'de> Visitor<'de> for DepthVisitor {
    type Value = Depth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Depth, E> {
        Ok(Depth(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Depth, A::Error> {
        let mut deepest = 0;
        while let Some(Depth(depth)) = elements.next_element()? {
            deepest = deepest.max(depth);
        }
        Ok(Depth(deepest + 1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Depth, A::Error> {
        let mut deepest = 0;
        while let Some((Depth(_), Depth(depth))) = members.next_entry()? {
            deepest = deepest.max(depth);
        }
        Ok(Depth(deepest + 1))
    }
}
