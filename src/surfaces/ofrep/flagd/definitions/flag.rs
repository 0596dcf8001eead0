//! One flag of a document.

use std::borrow::Cow;

use super::UnfitDefinitions;
use super::evaluators::Evaluators;
use super::variants::Variants;
use crate::surfaces::ofrep::flagd::compiler::MAX_FLAG;
use crate::surfaces::ofrep::flagd::reader::Reader;
use crate::surfaces::ofrep::flagd::value::{JsonValue, Members, write_object};

/// A flag, with what the document says of all flags. It holds JSON in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DefinedFlag {
    pub key: String,
    /// The flag set; empty for none.
    pub flag_set: String,
    /// Members that are not null, by name: each name with its value.
    metadata: Vec<(String, String)>,
    default: Option<String>,
    state: Option<String>,
    targeting: Option<String>,
    variants: Variants,
}

impl DefinedFlag {
    /// Reads a flag; `None` for one without a key.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        key: Option<&str>,
        common: &Members,
        evaluators: &mut Evaluators,
    ) -> Result<Option<Self>, UnfitDefinitions> {
        let mut own_key = None;
        let (mut default, mut state) = (None, None);
        let (mut targeting, mut own) = (None, Members::new());
        let mut variants = Variants::default();
        match reader.peek() {
            Some(b'{') => {}
            // A flag that is null says nothing.
            Some(b'n') => drop(reader.value()?),
            _ => return Err(UnfitDefinitions::new("", "is no object")),
        }
        if reader.peek() == Some(b'{') {
            reader.object(|reader, name| {
                match &*name {
                    "key" => own_key = text(reader, "key")?,
                    "state" => state = text(reader, "state")?,
                    "defaultVariant" => default = text(reader, "defaultVariant")?,
                    "variants" => variants = Variants::read(reader)?,
                    "targeting" => targeting = Some(reader.value()?),
                    "metadata" => match reader.value()? {
                        JsonValue::Object(members) => own = members.to_vec(),
                        JsonValue::Null => own = Members::new(),
                        _ => return Err(UnfitDefinitions::new("metadata", "is no object")),
                    },
                    _ => drop(reader.value()?),
                }
                Ok(())
            })?;
        }
        let key = key.map(Cow::Borrowed).or(own_key).unwrap_or_default();
        let unfit = |unfit: UnfitDefinitions| match key.is_empty() {
            true => unfit,
            false => unfit.of_flag(&key),
        };
        let default = default.filter(|default| !default.is_empty());
        if default
            .as_ref()
            .is_some_and(|default| !variants.has(default))
        {
            return Err(unfit(UnfitDefinitions::new(
                "defaultVariant",
                "is none of its variants",
            )));
        }
        if key.is_empty() {
            return Ok(None);
        }
        let targeting = match targeting {
            Some(rule) => Some(evaluators.resolve(&rule).map_err(unfit)?),
            None => None,
        };
        let mut metadata = common.clone();
        metadata.append(&mut own);
        let metadata = JsonValue::object(metadata);
        let flag_set = metadata.member("flagSetId").and_then(JsonValue::as_text);
        let flag = Self {
            flag_set: flag_set.map(|id| id.to_string()).unwrap_or_default(),
            metadata: shown(&metadata),
            default: default.map(Cow::into_owned),
            state: state.map(Cow::into_owned),
            // An empty rule is none.
            targeting: targeting
                .filter(|rule| *rule != JsonValue::object(Vec::new()))
                .map(|rule| json(&rule)),
            variants,
            key: key.to_string(),
        };
        let length = flag.text(None).len();
        if length > MAX_FLAG / 2 {
            let problem = format!("takes {length} bytes, of at most {}", MAX_FLAG / 2);
            return Err(unfit(UnfitDefinitions::new("", problem)));
        }
        Ok(Some(flag))
    }

    /// The flag as a selection has it: canonical JSON. `source` is added to metadata that have none.
    pub(super) fn text(&self, source: Option<&str>) -> String {
        let quoted = |text: &str| json(&JsonValue::text(text));
        let source = source.map(quoted);
        let own = self
            .metadata
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let mut metadata: Vec<(&str, &str)> = own.collect();
        if let Some(source) = &source
            && let Err(place) = metadata.binary_search_by(|(name, _)| (*name).cmp("source"))
        {
            metadata.insert(place, ("source", source));
        }
        let flag_set = Some(&self.flag_set).filter(|id| !id.is_empty());
        // In the order of names.
        let members = [
            ("defaultVariant", self.default.as_deref().map(quoted)),
            ("flagSetId", flag_set.map(|id| quoted(id))),
            ("key", Some(quoted(&self.key))),
            ("metadata", Some(object(metadata.into_iter()))),
            ("state", self.state.as_deref().map(quoted)),
            ("targeting", self.targeting.clone()),
            ("variants", Some(object(self.variants.iter()))),
        ];
        let members = members.iter();
        object(members.filter_map(|(name, value)| Some((*name, value.as_deref()?))))
    }
}

/// An object of these members, whose values are JSON.
fn object<'m>(members: impl Iterator<Item = (&'m str, &'m str)>) -> String {
    let mut out = Vec::new();
    write_object(members, &mut out, |value, out| {
        out.extend_from_slice(value.as_bytes())
    });
    String::from_utf8(out).unwrap_or_default()
}

/// A value in canonical form.
pub(super) fn json(value: &JsonValue) -> String {
    let mut out = Vec::new();
    value.write(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Metadata without the members that are null.
fn shown(metadata: &JsonValue) -> Vec<(String, String)> {
    let JsonValue::Object(members) = metadata else {
        return Vec::new();
    };
    let members = members
        .iter()
        .filter(|(_, value)| *value != JsonValue::Null);
    members
        .map(|(name, value)| (name.to_string(), json(value)))
        .collect()
}

/// Reads text, or null.
fn text<'t>(
    reader: &mut Reader<'t>,
    member: &'static str,
) -> Result<Option<Cow<'t, str>>, UnfitDefinitions> {
    match reader.peek() {
        Some(b'"') => Ok(Some(reader.string()?)),
        Some(b'n') => Ok(Some(reader.value()?).and(None)),
        _ => Err(UnfitDefinitions::new(member, "is no text")),
    }
}
