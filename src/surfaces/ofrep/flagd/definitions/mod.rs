//! flagd's documents, and the texts that are made of them.
//!
//! `{"flags": {…} | […], "metadata": {…}, "$evaluators": {…}}`: one bad flag refuses the whole document. Names of members are
//! taken with their case. A `$ref` is replaced in targeting alone, and evaluators may refer to others.

mod evaluators;
mod flag;
mod merged;
mod variants;

pub use evaluators::MAX_REFERRED;
pub use merged::selections;

use std::collections::BTreeMap;
use std::fmt;

use self::evaluators::Evaluators;
use self::flag::DefinedFlag;
use super::reader::{NotJson, Reader};
use super::value::{JsonValue, Members};

/// One document, read and checked.
#[derive(Clone, Debug)]
pub struct FlagdDocument {
    source: String,
    flags: Vec<DefinedFlag>,
}

/// Why a document is refused. Names a flag and a member, and quotes no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfitDefinitions {
    flag: Option<String>,
    member: &'static str,
    problem: String,
}

impl UnfitDefinitions {
    fn new(member: &'static str, problem: impl Into<String>) -> Self {
        Self {
            flag: None,
            member,
            problem: problem.into(),
        }
    }

    fn of_flag(mut self, key: &str) -> Self {
        self.flag.get_or_insert_with(|| key.to_owned());
        self
    }

    /// The key of the flag that does not fit; `None` where it is no flag that does not fit.
    pub fn flag(&self) -> Option<&str> {
        self.flag.as_deref()
    }

    /// The member that does not fit, such as `defaultVariant`; empty for the document, or the flag, as a whole.
    pub const fn member(&self) -> &'static str {
        self.member
    }
}

impl From<NotJson> for UnfitDefinitions {
    fn from(not_json: NotJson) -> Self {
        Self::new("", not_json.to_string())
    }
}

impl fmt::Display for UnfitDefinitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.flag {
            Some(key) => write!(f, "flag {key:?}")?,
            None => f.write_str("the document")?,
        }
        match self.member {
            "" => write!(f, " {}", self.problem),
            member => write!(f, ": `{member}` {}", self.problem),
        }
    }
}

impl std::error::Error for UnfitDefinitions {}

impl FlagdDocument {
    /// Reads a document in JSON. `source` is the name by which selectors know where it came from.
    ///
    /// # Errors
    /// What does not fit, and where.
    ///
    /// ```
    /// use flag_definitions_filter::surfaces::ofrep::flagd::FlagdDocument;
    /// let text = br#"{"flags": {"new-checkout": {"variants": {"on": true}, "defaultVariant": "off"}}}"#;
    /// let unfit = FlagdDocument::parse("shop.json", text).unwrap_err();
    /// assert_eq!(unfit.to_string(), r#"flag "new-checkout": `defaultVariant` is none of its variants"#);
    /// ```
    pub fn parse(source: &str, text: &[u8]) -> Result<Self, UnfitDefinitions> {
        let mut reader = Reader::of_definitions(text, 0);
        let (mut flags, mut metadata, mut evaluators) = (None, None, None);
        if reader.peek() != Some(b'{') {
            return Err(UnfitDefinitions::new("", "is no JSON object"));
        }
        reader.object(|reader, name| {
            let place = reader.clone();
            let value = reader.skipped()?;
            match &*name {
                "flags" => flags = Some(place),
                "metadata" => metadata = Some(value),
                "$evaluators" => evaluators = Some(value),
                _ => {}
            }
            Ok::<_, UnfitDefinitions>(())
        })?;
        reader.end()?;
        let metadata = members(metadata, "metadata")?;
        let mut evaluators = Evaluators::new(members(evaluators, "$evaluators")?)?;
        let mut flags = flags.ok_or_else(|| UnfitDefinitions::new("flags", "is missing"))?;
        let flags = read_flags(&mut flags, &metadata, &mut evaluators)?;
        Ok(Self {
            source: source.to_owned(),
            flags,
        })
    }

    /// How many flags it has.
    pub const fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }
}

/// The members of an object that may be absent or null.
fn members(text: Option<&[u8]>, member: &'static str) -> Result<Members, UnfitDefinitions> {
    match Reader::of_definitions(text.unwrap_or(b"null"), 0).value()? {
        JsonValue::Object(members) => Ok(members.to_vec()),
        JsonValue::Null => Ok(Members::new()),
        _ => Err(UnfitDefinitions::new(member, "is no object")),
    }
}

/// Reads flags: an object by key, or a list. Without a key a flag is dropped.
fn read_flags(
    reader: &mut Reader<'_>,
    metadata: &Members,
    evaluators: &mut Evaluators,
) -> Result<Vec<DefinedFlag>, UnfitDefinitions> {
    match reader.peek() {
        Some(b'{') => {
            let mut flags = BTreeMap::new();
            reader.object(|reader, key| {
                let flag = DefinedFlag::read(reader, Some(&key), metadata, evaluators);
                flags.insert(key.to_string(), flag.map_err(|unfit| unfit.of_flag(&key))?);
                Ok::<_, UnfitDefinitions>(())
            })?;
            Ok(flags.into_values().flatten().collect())
        }
        Some(b'[') => {
            let mut flags = Vec::new();
            let mut place = 0_usize;
            reader.list(|reader| {
                let flag = DefinedFlag::read(reader, None, metadata, evaluators);
                let named = format!("[{place}]");
                flags.extend(flag.map_err(|unfit| unfit.of_flag(&named))?);
                place += 1;
                Ok::<_, UnfitDefinitions>(())
            })?;
            Ok(flags)
        }
        _ => Err(UnfitDefinitions::new(
            "flags",
            "is neither an object nor a list",
        )),
    }
}
