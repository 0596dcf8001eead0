//! Flagsmith's list of the environments that a proxy key is for.
//!
//! `[{client_side_key, server_side_keys: [{key, active, expires_at}]}]`, as `src/models/proxy_config.rs` of edge-proxy-rs has
//! it. Other members are let be.

use serde_json::Value;

use super::fields::{FieldProblem, Fields, json, key_of, list, object, text};
use super::moments::unix_millis;
use super::secret::FlagsmithKey;

/// An environment of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEnvironment {
    /// Of clients.
    pub client_key: FlagsmithKey,
    /// Of servers, in the order of the keys, as the list has no order.
    pub server_keys: Vec<ServerKey>,
}

/// A key of servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey {
    /// The key.
    pub key: FlagsmithKey,
    /// Whether it counts at all.
    pub is_active: bool,
    /// From when on it does not count, in Unix milliseconds; `None`: it never expires.
    pub expires_at: Option<u64>,
}

impl ServerKey {
    /// One that always counts.
    pub const fn lasting(key: FlagsmithKey) -> Self {
        Self {
            key,
            is_active: true,
            expires_at: None,
        }
    }

    /// Whether it counts at this moment, in Unix milliseconds.
    pub fn counts_at(&self, unix: u64) -> bool {
        self.is_active && self.expires_at.is_none_or(|expires_at| unix < expires_at)
    }
}

/// Reads a list.
///
/// # Errors
/// When it is none: the whole list counts, or nothing of it.
pub fn parse(text: &[u8]) -> Result<Vec<ListedEnvironment>, FieldProblem> {
    let environments = list("", json(text)?)?;
    let environments = environments.into_iter().enumerate();
    environments
        .map(|(index, value)| environment(&format!("[{index}]"), value))
        .collect()
}

fn environment(path: &str, value: Value) -> Result<ListedEnvironment, FieldProblem> {
    let mut fields = object(path, value)?;
    let (path, value) = fields.required("client_side_key")?;
    let client_key = key_of(&path, value, false)?;
    let mut server_keys = match fields.take(&["server_side_keys"]) {
        None => Vec::new(),
        Some((path, value)) => {
            let keys = list(&path, value)?.into_iter().enumerate();
            keys.map(|(index, value)| server_key(object(&format!("{path}[{index}]"), value)?))
                .collect::<Result<_, _>>()?
        }
    };
    server_keys.sort_unstable();
    Ok(ListedEnvironment {
        client_key,
        server_keys,
    })
}

fn server_key(mut fields: Fields) -> Result<ServerKey, FieldProblem> {
    let (path, value) = fields.required("key")?;
    let key = key_of(&path, value, true)?;
    let (path, value) = fields.required("active")?;
    let no_flag = FieldProblem::new(path, "must be true or false");
    let is_active = value.as_bool().ok_or(no_flag)?;
    let expires_at = match fields.take(&["expires_at"]) {
        None | Some((_, Value::Null)) => None,
        Some((path, value)) => {
            let moment = unix_millis(&text(&path, value)?);
            let no_moment = || FieldProblem::new(path, "must be a moment of RFC 3339");
            Some(moment.ok_or_else(no_moment)?)
        }
    };
    Ok(ServerKey {
        key,
        is_active,
        expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Vec<ListedEnvironment>, String> {
        parse(value.to_string().as_bytes()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_list_is_read_whatever_else_it_has() {
        let list = read(&json!([{
            "id": 30, "name": "Production", "client_side_key": "client", "project_id": 35,
            "server_side_keys": [
                {"key": "ser.b", "active": false, "expires_at": null, "id": 3},
                {"key": "ser.a", "active": true, "expires_at": "1970-01-01T00:00:02.500Z"},
                {"key": "ser.c", "active": true},
            ],
        }, {"client_side_key": "other"}]))
        .unwrap();
        let [environment, other] = list.as_slice() else {
            panic!("{list:?}")
        };
        assert_eq!(other.server_keys, []);
        let keys = environment.server_keys.iter();
        let keys: Vec<_> = keys
            .map(|key| {
                (
                    key.key.as_bytes(),
                    key.counts_at(2_499),
                    key.counts_at(2_500),
                )
            })
            .collect();
        let expected: [(&[u8], bool, bool); 3] = [
            (b"ser.a", true, false),
            (b"ser.b", false, false),
            (b"ser.c", true, true),
        ];
        assert_eq!(keys, expected);
        assert_eq!(read(&json!([])), Ok(Vec::new()));
    }

    #[test]
    fn a_list_with_an_error_is_refused_whole_and_by_path() {
        let with = |key: Value| json!([{"client_side_key": "client", "server_side_keys": [key]}]);
        for (list, problem) in [
            (json!({}), "must be a list"),
            (json!(["hunter2"]), "[0]: must be an object"),
            (json!([{}]), "[0].client_side_key: is missing"),
            (
                json!([{"client_side_key": "ser.hunter2"}]),
                "[0].client_side_key: begins with ser., so it is a server-side key",
            ),
            (
                with(json!({"key": "hunter2", "active": true})),
                "[0].server_side_keys[0].key: must begin with ser.",
            ),
            (
                with(json!({"key": "ser.a"})),
                "[0].server_side_keys[0].active: is missing",
            ),
            (
                with(json!({"key": "ser.a", "active": "hunter2"})),
                "[0].server_side_keys[0].active: must be true or false",
            ),
            (
                with(json!({"key": "ser.a", "active": true, "expires_at": "hunter2"})),
                "[0].server_side_keys[0].expires_at: must be a moment of RFC 3339",
            ),
        ] {
            assert_eq!(read(&list).unwrap_err(), problem);
        }
    }
}
