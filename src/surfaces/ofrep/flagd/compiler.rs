//! Compiles the text of a selection in slices.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use super::reader::{NotJson, Reader};
use super::rules::TargetingRule;
use super::selection::{Kind, SelectedFlag, Selection, Variant};
use super::value::{JsonValue, write_text};

/// Longest flag in a text, in bytes; in definitions half of that, as a text adds the source's name. It is compiled at once: 256 KiB of
/// a list take 1.5 ms natively, of parts of a rule 8 ms.
pub const MAX_FLAG: usize = 512 << 10;

/// Flags that are put into order in the slice in which the last one is read; more have one of their own.
const ORDERED_AT_ONCE: usize = 1_000;

/// How far compiling a text came.
#[derive(Debug)]
pub enum Compilation {
    /// Call [`SelectionCompiler::step`] again.
    More,
    /// The text fits.
    Done(Box<Selection>),
    /// It does not, and nothing of it is used.
    Unfit(UnfitSelection),
}

/// A text that [`selections`](super::selections) did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfitSelection {
    /// Where, in bytes from the beginning: the flag that does not fit begins or breaks off there.
    pub at: usize,
}

impl fmt::Display for UnfitSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the selection is not as the publisher writes it, at byte {}",
            self.at
        )
    }
}

impl std::error::Error for UnfitSelection {}

impl From<NotJson> for UnfitSelection {
    fn from(NotJson { at }: NotJson) -> Self {
        Self { at }
    }
}

/// Compiles one text, whole or not at all.
pub struct SelectionCompiler {
    text: Rc<Vec<u8>>,
    at: usize,
    name: Box<str>,
    flags: Vec<SelectedFlag>,
    is_read: bool,
    is_over: bool,
}

impl SelectionCompiler {
    /// Compiles this text, as [`selections`](super::selections) writes it.
    pub fn new(text: Rc<Vec<u8>>) -> Self {
        Self {
            text,
            at: 0,
            name: Box::default(),
            flags: Vec::new(),
            is_read: false,
            is_over: false,
        }
    }

    /// Goes on for about this many bytes of the text, and at least by one flag.
    pub fn step(&mut self, budget: usize) -> Compilation {
        let step = match self.is_over {
            true => Err(UnfitSelection { at: self.at }),
            false if self.is_read => Ok(true),
            false => self.read(budget),
        };
        match step {
            Ok(false) => Compilation::More,
            Ok(true) if !self.is_read && self.flags.len() > ORDERED_AT_ONCE => {
                self.is_read = true;
                Compilation::More
            }
            Ok(true) => {
                self.is_over = true;
                let (name, flags) = (
                    std::mem::take(&mut self.name),
                    std::mem::take(&mut self.flags),
                );
                Compilation::Done(Box::new(Selection::new(name, flags)))
            }
            Err(unfit) => {
                self.is_over = true;
                self.flags = Vec::new();
                Compilation::Unfit(unfit)
            }
        }
    }

    /// Reads some flags; says whether they were the last ones.
    fn read(&mut self, budget: usize) -> Result<bool, UnfitSelection> {
        let text = Rc::clone(&self.text);
        let until = self.at.saturating_add(budget.max(1));
        if self.at == 0 {
            let mut reader = Reader::new(&text, 0);
            reader.expect(b'{')?;
            member(&mut reader, "selector")?;
            self.name = reader.string()?.into();
            reader.expect(b',')?;
            member(&mut reader, "flags")?;
            reader.expect(b'[')?;
            if reader.takes(b']') {
                return ended(reader);
            }
            self.at = reader.position();
        }
        while self.at < until {
            // What is cut off at the bound does not end as a flag does.
            let most = text.len().min(self.at.saturating_add(MAX_FLAG));
            let mut reader = Reader::of_definitions(text.get(..most).unwrap_or_default(), self.at);
            self.flags.push(flag(&mut reader)?);
            let mut reader = Reader::new(&text, reader.position());
            if !reader.takes(b',') {
                reader.expect(b']')?;
                return ended(reader);
            }
            self.at = reader.position();
        }
        Ok(false)
    }
}

/// Takes the name of this member.
fn member(reader: &mut Reader<'_>, name: &str) -> Result<(), UnfitSelection> {
    let at = reader.position();
    if reader.string()? != name {
        return Err(UnfitSelection { at });
    }
    Ok(reader.expect(b':')?)
}

fn ended(mut reader: Reader<'_>) -> Result<bool, UnfitSelection> {
    reader.expect(b'}')?;
    reader.end()?;
    Ok(true)
}

/// Reads a flag.
fn flag(reader: &mut Reader<'_>) -> Result<SelectedFlag, UnfitSelection> {
    let from = reader.position();
    let unfit = UnfitSelection { at: from };
    let (mut key, mut state, mut default) = (None, None, None);
    let (mut rule, mut metadata) = (None, JsonValue::object(Vec::new()));
    let mut variants = Vec::new();
    reader.object(|reader, name| {
        match &*name {
            "key" => key = Some(reader.string()?),
            "state" => state = Some(reader.string()?),
            "defaultVariant" => default = Some(reader.string()?),
            "metadata" => metadata = reader.value()?,
            "targeting" => rule = Some(TargetingRule::new(&reader.value()?)),
            "variants" => reader.object(|reader, name| variant(reader, &name, &mut variants))?,
            // The set's name, which the order of flags and metadata have.
            _ => drop(reader.value()?),
        }
        Ok::<_, UnfitSelection>(())
    })?;
    variants.sort_by(|a: &Variant, b| a.name.cmp(&b.name));
    let key: Cow<'_, str> = key.ok_or(unfit)?;
    let mut head = b"{\"key\":".to_vec();
    write_text(&key, &mut head);
    let mut tail = b",\"metadata\":".to_vec();
    metadata.write(&mut tail);
    tail.push(b'}');
    let mut flag = SelectedFlag {
        key: key.into(),
        is_disabled: state.is_some_and(|state| state == "DISABLED"),
        variants,
        default: None,
        rule,
        head: head.into(),
        tail: tail.into(),
        weight: size_of::<SelectedFlag>() + (reader.position() - from),
    };
    if let Some(default) = default {
        let place = flag.variants.iter().position(|own| *own.name == *default);
        flag.default = Some(place.ok_or(unfit)?);
    }
    Ok(flag)
}

fn variant(
    reader: &mut Reader<'_>,
    name: &str,
    variants: &mut Vec<Variant>,
) -> Result<(), UnfitSelection> {
    let kind = Kind::of(reader.peek().unwrap_or_default());
    let value = reader.skipped()?;
    variants.push(Variant::new(name, value, kind));
    Ok(())
}
