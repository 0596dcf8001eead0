//! A task as Celery's workers take it from Redis: message protocol version 2, in the envelope of kombu's Redis
//! transport.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tenant::Tenant;

/// The argument that stands for the team's id.
pub const TEAM_ID: &str = "{team_id}";

/// Who sent a message, as Celery shows it.
const ORIGIN: &str = "flag-definitions-filter";

/// A task that rebuilds one team's payload.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Celery {
    /// Name of the task.
    pub task: String,
    /// The queue, which is the key of a Redis list.
    pub queue: String,
    /// Positional arguments. One that is the string [`TEAM_ID`] becomes the team's id, an integer.
    pub args: Vec<Value>,
}

impl Default for Celery {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl Celery {
    /// A task in Celery's default queue, with the team's id as its only argument.
    pub fn new(task: String) -> Self {
        Self {
            task,
            queue: "celery".to_owned(),
            args: vec![TEAM_ID.into()],
        }
    }

    /// The element of the queue. `task` and `delivery` are random bytes.
    pub(super) fn message(&self, team: Tenant, task: [u8; 16], delivery: [u8; 16]) -> String {
        let args: Vec<Value> = self
            .args
            .iter()
            .map(|argument| match argument.as_str() {
                Some(TEAM_ID) => team.0.into(),
                _ => argument.clone(),
            })
            .collect();
        let body = json!([
            args,
            {},
            { "callbacks": null, "errbacks": null, "chain": null, "chord": null }
        ]);
        let id = uuid4(task);
        json!({
            "body": STANDARD.encode(body.to_string()),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {
                "lang": "py",
                "task": self.task,
                "id": id,
                "root_id": id,
                "parent_id": null,
                "shadow": null,
                "eta": null,
                "expires": null,
                "group": null,
                "retries": 0,
                "timelimit": [null, null],
                "origin": ORIGIN,
                "ignore_result": true
            },
            "properties": {
                "correlation_id": id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": { "exchange": "", "routing_key": self.queue },
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": uuid4(delivery)
            }
        })
        .to_string()
    }
}

/// Random bytes as a version 4 UUID (RFC 9562 §5.4).
fn uuid4(random: [u8; 16]) -> String {
    let number = u128::from_be_bytes(random);
    let number = number & !(0xf << 76) | (0x4 << 76);
    let number = number & !(0x3 << 62) | (0x2 << 62);
    let mut text = String::with_capacity(36);
    for (index, byte) in number.to_be_bytes().into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Takes the body out of a message.
    fn body_of(message: &mut Value) -> Value {
        let body = message.as_object_mut().unwrap().remove("body").unwrap();
        let body = STANDARD.decode(body.as_str().unwrap()).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn a_message_is_celerys_protocol_2() {
        let mut celery = Celery::new("posthog.tasks.rebuild".to_owned());
        celery.queue = "flags".to_owned();
        let message = celery.message(Tenant(7), [0; 16], [0xff; 16]);
        let id = "00000000-0000-4000-8000-000000000000";
        let mut message: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(
            body_of(&mut message),
            json!([
                [7],
                {},
                { "callbacks": null, "errbacks": null, "chain": null, "chord": null }
            ])
        );
        assert_eq!(
            message,
            json!({
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": {
                    "lang": "py", "task": "posthog.tasks.rebuild", "id": id, "root_id": id,
                    "parent_id": null, "shadow": null, "eta": null, "expires": null, "group": null,
                    "retries": 0, "timelimit": [null, null], "origin": "flag-definitions-filter",
                    "ignore_result": true
                },
                "properties": {
                    "correlation_id": id, "reply_to": "", "delivery_mode": 2,
                    "delivery_info": { "exchange": "", "routing_key": "flags" },
                    "priority": 0, "body_encoding": "base64",
                    "delivery_tag": "ffffffff-ffff-4fff-bfff-ffffffffffff"
                }
            })
        );
    }

    #[test]
    fn only_the_whole_argument_stands_for_the_team() {
        let mut celery = Celery::new("t".to_owned());
        celery.args = vec![
            json!("{team_id}"),
            json!("x{team_id}"),
            json!(["{team_id}"]),
        ];
        let message = celery.message(Tenant(4_294_967_295), [0; 16], [0; 16]);
        let mut message: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(
            body_of(&mut message)[0],
            json!([4_294_967_295_u32, "x{team_id}", ["{team_id}"]])
        );
    }

    #[test]
    fn uuids_are_the_random_bytes_in_order() {
        let random = std::array::from_fn(|index| 0x10 + index as u8);
        assert_eq!(uuid4(random), "10111213-1415-4617-9819-1a1b1c1d1e1f");
    }
}
