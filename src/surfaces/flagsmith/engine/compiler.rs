//! Compiles a document in slices.

mod draft;

use std::ops::Range;
use std::rc::Rc;

use serde::Deserialize;

use self::draft::Draft;
use super::document::text_or_none;
use super::environment::Environment;
use super::place;
use super::split::{Level, Member, Part, Splitter};
use super::unfit::{self, Unfit};

/// How far compiling a document came.
#[derive(Debug)]
pub enum Progress {
    /// Call [`Compiler::step`] again.
    More,
    /// The document fits.
    Done(Box<Environment>),
    /// It does not, and nothing of it is used.
    Unfit(Unfit),
}

/// Compiles one document, whole or not at all.
pub struct Compiler {
    text: Rc<Vec<u8>>,
    splitter: Splitter,
    draft: Draft,
    stage: Stage,
}

enum Stage {
    /// The text is read.
    Reading,
    /// The pattern of this number is compiled next.
    Patterns(usize),
    /// There is nothing left to do.
    Over,
}

impl Compiler {
    /// Compiles this document: JSON in UTF-8.
    pub fn new(text: Rc<Vec<u8>>) -> Self {
        Self {
            text,
            splitter: Splitter::new(),
            draft: Draft::default(),
            stage: Stage::Reading,
        }
    }

    /// Goes on for about this many bytes of the document, and at least by one element of it. A pattern that is compiled counts
    /// as the bytes that it takes.
    ///
    /// Natively 64 KiB take 0.15 ms, and the last step of 4.7 MB of document 0.9 ms; an element as large as
    /// [`MAX_ELEMENT`](super::MAX_ELEMENT) takes 1.5 ms.
    pub fn step(&mut self, budget: usize) -> Progress {
        let step = match self.stage {
            Stage::Reading => self.read(budget),
            Stage::Patterns(from) => self.compile_patterns(from, budget),
            Stage::Over => Err(Unfit::new("", "was compiled already")),
        };
        match step {
            Ok(None) => Progress::More,
            Ok(Some(environment)) => {
                self.stage = Stage::Over;
                Progress::Done(Box::new(environment))
            }
            Err(unfit) => {
                self.stage = Stage::Over;
                self.draft = Draft::default();
                Progress::Unfit(unfit)
            }
        }
    }

    /// Bytes of the document that were read.
    #[cfg(test)]
    pub(super) const fn position(&self) -> usize {
        self.splitter.position()
    }

    fn read(&mut self, budget: usize) -> Result<Option<Environment>, Unfit> {
        let text = Rc::clone(&self.text);
        let until = self.splitter.position().saturating_add(budget.max(1));
        while self.splitter.position() < until {
            match self.splitter.next(&text)? {
                Part::Enter(level) => self.draft.enter(level),
                Part::Value(level, member, range) => self.value(&text, level, member, range)?,
                Part::Leave(level) => self.leave(level)?,
                Part::Pause => {}
                Part::End => {
                    self.stage = Stage::Patterns(0);
                    break;
                }
            }
        }
        Ok(None)
    }

    fn compile_patterns(
        &mut self,
        from: usize,
        budget: usize,
    ) -> Result<Option<Environment>, Unfit> {
        let mut spent = 0;
        for number in from.. {
            if spent >= budget.max(1) {
                self.stage = Stage::Patterns(number);
                return Ok(None);
            }
            match self.draft.compile_pattern(number) {
                Some(work) => spent += work,
                None => break,
            }
        }
        Ok(Some(std::mem::take(&mut self.draft).finish()))
    }

    /// Takes a member of an object, or an element of a list.
    fn value(
        &mut self,
        text: &[u8],
        level: Level,
        member: Option<Member>,
        range: Range<usize>,
    ) -> Result<(), Unfit> {
        let value = text.get(range).unwrap_or_default();
        let path = &self.splitter;
        let draft = &mut self.draft;
        match (level, member) {
            (Level::States, _) => draft.environment_state(&element(value, path)?),
            (Level::SegmentStates, _) => draft.segment_override(&element(value, path)?),
            (Level::OverrideStates, _) => draft.identity_override(&element(value, path)?),
            (Level::Rules, _) => draft.rule(&element(value, path)?),
            (Level::OverrideTraits, _) => draft.identity_trait(element(value, path)?),
            (Level::Document, Some(Member::ApiKey)) => draft.made.api_key = element(value, path)?,
            (Level::Document, Some(Member::Name)) => draft.made.name = element(value, path)?,
            (Level::Document, Some(Member::UpdatedAt)) => {
                draft.made.updated_at = text_or_none(element(value, path)?);
            }
            (Level::Project, Some(Member::Organisation)) => {
                draft.organisation(element(value, path)?);
            }
            (Level::Project, Some(Member::HideDisabledFlags)) => {
                draft.made.hides_disabled_flags = element(value, path)?;
            }
            (Level::Project, Some(Member::ServerKeyOnlyFeatureIds)) => {
                draft.server_only(element(value, path)?);
            }
            (Level::Segment, Some(Member::Id)) => draft.segment_id(element(value, path)?),
            (Level::Override, Some(Member::Identifier)) => {
                draft.identifier = element(value, path)?;
            }
            (Level::Override, Some(Member::CreatedDate)) => {
                draft.created_date(element(value, path)?);
            }
            (Level::Override, Some(Member::DjangoId)) => {
                let _: Option<u32> = element(value, path)?;
            }
            (Level::Document | Level::Project, Some(Member::Id)) => {
                let _: u32 = element(value, path)?;
            }
            (Level::Project | Level::Segment, Some(Member::Name))
            | (Level::Override, Some(Member::EnvironmentApiKey | Member::IdentityUuid)) => {
                let _: String = element(value, path)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn leave(&mut self, level: Level) -> Result<(), Unfit> {
        let demanded: &[Member] = match level {
            Level::Document => &[
                Member::Id,
                Member::ApiKey,
                Member::Project,
                Member::FeatureStates,
            ],
            Level::Project => &[
                Member::Id,
                Member::Name,
                Member::Organisation,
                Member::HideDisabledFlags,
                Member::Segments,
            ],
            Level::Segment => &[Member::Id, Member::Name, Member::Rules],
            Level::Override => &[
                Member::Identifier,
                Member::EnvironmentApiKey,
                Member::CreatedDate,
            ],
            _ => &[],
        };
        let missing = demanded.iter().find(|member| !self.splitter.has(**member));
        self.splitter.left();
        if let Some(member) = missing {
            let problem = format!("has no `{}`", member.name());
            return Err(Unfit::new(self.splitter.path(), problem));
        }
        match level {
            Level::Segment => self.draft.segment(),
            Level::Override => self.draft.identity(),
            _ => {}
        }
        Ok(())
    }
}

/// Reads an element.
fn element<'t, T: Deserialize<'t>>(value: &'t [u8], at: &Splitter) -> Result<T, Unfit> {
    serde_json::from_slice(value).map_err(|error| unfit_element(value, at, &error))
}

#[cold]
fn unfit_element(value: &[u8], at: &Splitter, error: &serde_json::Error) -> Unfit {
    let offset = place::offset(value, error).unwrap_or_default();
    let (outer, inner) = (at.path(), place::at_offset(value, offset));
    let dot = match inner.as_bytes().first() {
        None | Some(b'[') => "",
        Some(_) => ".",
    };
    Unfit::new(outer + dot + &inner, unfit::words(error))
}
