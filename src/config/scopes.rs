//! Which settings decide what is in shared data.

use crate::redis::Gateway;
use crate::shared::Scope;
use crate::surfaces::posthog::settings::{self as posthog, Scopes};

fn place(redis: &Gateway) -> String {
    format!("{}\n{:?}", redis.cluster, redis.dialect)
}

/// The scope of what other surfaces than PostHog's count with these settings: it goes to the Redis of the snapshot.
pub fn reported_scope(settings: &posthog::PostHogSettings) -> Scope {
    let snapshot = &settings.snapshot;
    Scope::new("r", &[&place(&settings.redis.snapshot), &snapshot.prefix])
}

/// The scopes of PostHog's surface with these settings.
pub fn scopes(settings: &posthog::PostHogSettings) -> Scopes {
    let posthog::PostHogSettings {
        redis,
        snapshot,
        definitions,
        quota,
        ..
    } = settings;
    Scopes {
        data: Scope::new(
            "",
            &[
                &place(&redis.snapshot),
                &place(&redis.definitions),
                &place(&redis.identity),
                &place(&redis.quota),
                &snapshot.prefix,
                &snapshot.buckets.to_string(),
                &definitions.key_prefix,
                &definitions.cache_version,
                &quota.free_latch.to_string(),
            ],
        ),
        usage: Scope::new("u", &[&place(&redis.usage), &snapshot.prefix]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::surfaces::posthog::{read_through, rebuild};
    use crate::{documents, limits, usage};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn of(json: &str) -> Scopes {
        scopes(&Settings::from_json(json.as_bytes()).unwrap().posthog)
    }

    #[test]
    fn names_are_those_of_the_format() {
        let Scopes { data, usage } = of("{}");
        assert_eq!(data.name("lease"), "fd1:eadf4b240e3f:lease");
        assert_eq!(usage.name("lease"), "fd1u:0f8652407608:lease");
    }

    #[test]
    fn scopes_differ_with_every_setting_that_decides_their_content() {
        let base = of("{}");
        for json in [
            r#"{"redis":{"default":{"cluster":"other"}}}"#,
            r#"{"snapshot":{"prefix":"other:"}}"#,
            r#"{"snapshot":{"buckets":16}}"#,
            r#"{"definitions":{"key_prefix":"other:"}}"#,
            r#"{"definitions":{"cache_version":"2"}}"#,
        ] {
            assert_ne!(base, of(json), "{json}");
        }
        assert_eq!(base, of(r#"{"role":"health"}"#), "the health role reads");
        assert_eq!(base, of(r#"{"snapshot":{"max_age":"1h"}}"#));
    }

    #[test]
    fn counts_outlive_a_change_of_anything_but_their_redis() {
        let base = of("{}").usage;
        let kept = r#"{"definitions":{"key_prefix":"other:"},"redis":{"quota":{"cluster":"q"}}}"#;
        assert_eq!(base, of(kept).usage);
        assert_ne!(base, of(r#"{"redis":{"usage":{"cluster":"other"}}}"#).usage);
    }

    #[test]
    fn reported_counts_outlive_a_change_of_anything_but_the_redis_of_the_snapshot() {
        let of = |json: &str| {
            let settings = Settings::from_json(json.as_bytes()).unwrap();
            reported_scope(&settings.posthog)
        };
        let base = of("{}");
        assert!(base.as_str().starts_with("fd1r:"));
        let kept = r#"{"snapshot":{"buckets":16},"redis":{"usage":{"cluster":"other"}}}"#;
        assert_eq!(base, of(kept));
        assert_ne!(base, of(r#"{"redis":{"snapshot":{"cluster":"other"}}}"#));
        assert_ne!(base, of(r#"{"snapshot":{"prefix":"other:"}}"#));
    }

    #[test]
    fn the_entries_of_the_default_settings_do_not_make_envoys_map_grow_twice() {
        // Who loads, who sends usage, and so on: each has a name of its own.
        let single = 100;
        let slots = [
            u32::from(read_through::table::SLOTS),
            u32::from(usage::ledger::SLOTS),
            #[cfg(feature = "flagsmith")]
            u32::from(crate::surfaces::flagsmith::usage::SLOTS),
            #[cfg(feature = "ofrep")]
            crate::surfaces::ofrep::surface::SLOTS,
            rebuild::SLOTS,
            limits::budgets::SLOTS,
            documents::confirmed::MOST_SLOTS,
        ];
        let buckets = Settings::default().posthog.snapshot.buckets;
        let entries = buckets + slots.iter().sum::<u32>() + single;
        // Sizes of libc++'s unordered_map on its way: it visits all entries when it gets one more than these.
        assert!((25_717..51_437).contains(&entries), "{entries}");
    }
}
