//! The section `health` of a plugin configuration.

use serde::Deserialize;

use crate::http::query::split_query;

/// What the filter role says of itself on its own listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSettings {
    /// Paths that are answered there as on the health listener, before any surface is asked.
    pub paths: Vec<HealthPath>,
}

/// A path of the health listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum HealthPath {
    /// Whether requests can be decided.
    #[serde(rename = "/ready")]
    Ready,
    /// How the filter is.
    #[serde(rename = "/health")]
    Health,
    /// How Flagsmith's environments are.
    #[serde(rename = "/proxy/health")]
    Edge,
    /// The same.
    #[serde(rename = "/proxy/health/readiness")]
    EdgeReadiness,
    /// That somebody answers.
    #[serde(rename = "/proxy/health/liveness")]
    EdgeLiveness,
}

impl HealthPath {
    /// As it stands in a request.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ready => "/ready",
            Self::Health => "/health",
            Self::Edge => "/proxy/health",
            Self::EdgeReadiness => "/proxy/health/readiness",
            Self::EdgeLiveness => "/proxy/health/liveness",
        }
    }
}

impl HealthSettings {
    /// Whether a `:path` is one of them, its query aside. The match is exact.
    pub fn owns(&self, path: &[u8]) -> bool {
        let path = split_query(path).0;
        let mut paths = self.paths.iter();
        paths.any(|one| one.text().as_bytes() == path)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn five_paths_can_be_named_and_each_is_matched_exactly() {
        let all = [
            "/ready",
            "/health",
            "/proxy/health",
            "/proxy/health/readiness",
            "/proxy/health/liveness",
        ];
        for named in all {
            let json = serde_json::json!({"health": {"paths": [named]}}).to_string();
            let health = Settings::from_json(json.as_bytes()).unwrap().health;
            for path in all {
                assert_eq!(health.owns(path.as_bytes()), path == named);
                assert_eq!(health.owns(format!("{path}?x").as_bytes()), path == named);
                assert!(!health.owns(format!("{path}/").as_bytes()));
                assert!(!health.owns(format!("/{path}").as_bytes()));
            }
        }
        assert!(!Settings::default().health.owns(b"/ready"));
    }

    #[test]
    fn any_other_path_is_refused_by_its_place() {
        let error = |json: &[u8]| Settings::from_json(json).unwrap_err().to_string();
        let found = error(br#"{"health":{"paths":["/ready","/flags/definitions"]}}"#);
        let expected =
            "health.paths[1]: unknown variant `/flags/definitions`, expected one of `/ready`";
        assert!(found.starts_with(expected), "{found}");
        let found = error(br#"{"health":{"path":[]}}"#);
        assert!(found.starts_with("health.path: unknown field"), "{found}");
    }

    #[test]
    fn a_path_that_nobody_answers_is_warned_of() {
        let warned = |json: &str| {
            let settings = Settings::from_json(json.as_bytes()).unwrap();
            settings.warnings.len()
        };
        let paths = r#""health":{"paths":["/ready","/proxy/health"]}"#;
        assert_eq!(warned(&format!("{{{paths}}}")), 1);
        #[cfg(feature = "flagsmith")]
        assert_eq!(
            warned(&format!(r#"{{{paths},"flagsmith":{{"enabled":true}}}}"#)),
            0
        );
    }
}
