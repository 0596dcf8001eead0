//! The crate's answers, asked as Flagsmith's proxy asks.

use flagsmith_flag_engine::engine::get_evaluation_result;
use flagsmith_flag_engine::engine_eval::{add_identity_to_context, environment_to_context};
use flagsmith_flag_engine::features::FeatureState;
use flagsmith_flag_engine::identities::{Identity, Trait};
use flagsmith_flag_engine::organisations::Organisation;
use flagsmith_flag_engine::segments::Segment;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shapes::IdentityAsked;

/// The members that the proxy demands of a document.
#[derive(Deserialize)]
struct Document {
    id: u32,
    api_key: String,
    #[serde(default)]
    name: String,
    project: Project,
    feature_states: Vec<FeatureState>,
    #[serde(default)]
    identity_overrides: Vec<Identity>,
}

#[derive(Deserialize)]
struct Project {
    id: u32,
    name: String,
    organisation: Organisation,
    hide_disabled_flags: bool,
    segments: Vec<Segment>,
    #[serde(default, rename = "server_key_only_feature_ids")]
    _server_only: Vec<u32>,
}

/// The crate's document, if it takes it.
pub fn read(
    document: &Value,
) -> Result<flagsmith_flag_engine::environments::Environment, serde_json::Error> {
    let read: Document = serde_json::from_value(document.clone())?;
    Ok(flagsmith_flag_engine::environments::Environment {
        id: read.id,
        api_key: read.api_key,
        name: read.name,
        project: flagsmith_flag_engine::projects::Project {
            id: read.project.id,
            name: read.project.name,
            organisation: read.project.organisation,
            hide_disabled_flags: read.project.hide_disabled_flags,
            segments: read.project.segments,
        },
        feature_states: read.feature_states,
        identity_overrides: read.identity_overrides,
    })
}

/// All flags, by the id of their feature.
pub fn flags(document: &Value, asked: Option<&IdentityAsked>) -> Value {
    let mut context = environment_to_context(read(document).unwrap());
    if let Some(asked) = asked {
        let traits: Vec<Trait> = asked
            .traits
            .iter()
            .map(|(key, value)| Trait {
                trait_key: key.clone(),
                trait_value: serde_json::from_value(value.clone()).unwrap_or_default(),
            })
            .collect();
        context = add_identity_to_context(&context, &asked.identifier, &traits);
    }
    let result = get_evaluation_result(&context);
    let mut flags: Vec<_> = result.flags.into_values().collect();
    flags.sort_by_key(|flag| flag.metadata.feature_id);
    flags
        .into_iter()
        .map(|flag| {
            json!({
                "enabled": flag.enabled,
                "feature": {
                    "id": flag.metadata.feature_id,
                    "name": flag.name,
                    "type": flag.metadata.feature_type,
                },
                "feature_state_value": flag.value,
            })
        })
        .collect()
}

/// The document with all variants in the order of their ids, then of their UUIDs: the crate takes them as they stand.
pub fn sorted_variants(document: &Value) -> Value {
    let mut document = document.clone();
    sort(&mut document);
    document
}

fn sort(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(sort),
        Value::Object(members) => {
            if let Some(Value::Array(variants)) =
                members.get_mut("multivariate_feature_state_values")
            {
                variants.sort_by_key(|variant| {
                    let uuid = variant["mv_fs_value_uuid"].as_str().map(str::to_owned);
                    (variant["id"].as_u64().unwrap_or(u64::MAX), uuid)
                });
            }
            members.values_mut().for_each(sort);
        }
        _ => {}
    }
}
