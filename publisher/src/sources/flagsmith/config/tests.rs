use super::*;
use serde_json::json;

fn read(value: &Value) -> Result<(FlagsmithConfig, Vec<UnusedField>), String> {
    parse(value.to_string().as_bytes()).map_err(|problem| problem.to_string())
}

fn pair(client: &str, server: &str) -> Value {
    json!({"server_side_key": server, "client_side_key": client})
}

#[test]
fn defaults_are_those_of_the_rust_proxy() {
    let file = json!({"environment_key_pairs": [pair("a", "ser.a")]});
    let (config, unused) = read(&file).unwrap();
    assert_eq!(
        config.api_url.to_string(),
        "https://edge.api.flagsmith.com/api/v1/"
    );
    assert_eq!(config.poll_frequency, Duration::from_secs(60));
    assert_eq!(config.poll_timeout, Duration::from_secs(5));
    assert_eq!(config.grace, Some(120));
    assert_eq!(config.proxy_key, None);
    assert_eq!(unused, []);
}

#[test]
fn a_file_of_the_python_proxy_is_taken_as_it_is() {
    let file = json!({
        "environment_key_pairs": [pair(" a ", " ser.a ")],
        "api_url": "https://flagsmith.example.com/api/v1/",
        "api_poll_frequency": 10,
        "api_poll_timeout": 7,
        "endpoint_caches": {"flags": {"use_cache": true, "cache_max_size": 128}},
        "allow_origins": ["*"],
        "logging": {"log_level": "DEBUG", "log_format": "json", "colours": true},
        "server": {"host": "0.0.0.0", "port": 8000, "reload": false},
        "health_check": {"environment_update_grace_period_seconds": null},
    });
    let (config, unused) = read(&file).unwrap();
    assert_eq!(config.pairs[0].client_side.as_bytes(), b"a");
    assert_eq!(config.pairs[0].server_side.as_bytes(), b"ser.a");
    assert_eq!(
        config.api_url.to_string(),
        "https://flagsmith.example.com/api/v1/"
    );
    assert_eq!(config.poll_frequency, Duration::from_secs(10));
    assert_eq!(config.poll_timeout, Duration::from_secs(7));
    assert_eq!(config.grace, None);
    let old = ["server", "logging", "allow_origins", "endpoint_caches"];
    assert_eq!(unused, old.map(UnusedField::OldServer));
}

#[test]
fn a_file_of_the_rust_proxy_is_taken_as_it_is() {
    let file = json!({
        "proxy_key": "pk.a",
        "api_url": "http://127.0.0.1:8000",
        "api_poll_frequency_seconds": 30,
        "api_poll_timeout_seconds": 2,
        "usage_flush_interval_seconds": 20,
        "server": {"host": "0.0.0.0", "port": 8000},
        "health_check": {"environment_update_grace_period_seconds": 45},
    });
    let (config, unused) = read(&file).unwrap();
    assert_eq!(config.proxy_key.unwrap().as_bytes(), b"pk.a");
    assert_eq!(config.api_url.to_string(), "http://127.0.0.1:8000/");
    assert_eq!(config.poll_frequency, Duration::from_secs(30));
    assert_eq!(config.poll_timeout, Duration::from_secs(2));
    assert_eq!(config.usage_flush_interval, Duration::from_secs(20));
    assert_eq!(config.grace, Some(45));
    assert_eq!(unused, [UnusedField::OldServer("server")]);
}

#[test]
fn a_health_check_without_a_grace_period_has_the_default() {
    for health_check in [json!({}), json!(null)] {
        let file = json!({"proxy_key": "pk.a", "health_check": health_check});
        assert_eq!(read(&file).unwrap().0.grace, Some(120));
    }
}

#[test]
fn unknown_fields_are_named_by_path() {
    let mut other = pair("b", "ser.b");
    other["name"] = json!("ser.hunter2");
    let mut first = other.clone();
    first["client_side_key"] = json!("a");
    first["server_side_key"] = json!("ser.a");
    let file = json!({
        "environment_key_pairs": [first, other],
        "telemetry": {},
        "ser.hunter2": 1,
        "health_check": {"period": 3},
    });
    let (_, unused) = read(&file).unwrap();
    let names = [
        "environment_key_pairs[].name",
        "health_check.period",
        "telemetry",
        "…",
    ];
    assert_eq!(
        unused,
        names.map(|name| UnusedField::Unknown(name.to_owned()))
    );
}

#[test]
fn what_is_refused_is_named_by_path_and_never_shown() {
    let pairs = |pairs: Value| json!({"environment_key_pairs": pairs});
    let with = |name: &str, value: Value| json!({"proxy_key": "pk.hunter2", name: value});
    for (file, problem) in [
        (json!([]), "must be an object"),
        (
            json!({}),
            "environment_key_pairs: is empty, and there is no proxy_key: no environment is named",
        ),
        (
            pairs(json!([])),
            "environment_key_pairs: is empty, and there is no proxy_key: no environment is named",
        ),
        (pairs(json!({})), "environment_key_pairs: must be a list"),
        (
            pairs(json!(["ser.hunter2"])),
            "environment_key_pairs[0]: must be an object",
        ),
        (
            pairs(json!([{"client_side_key": "hunter2"}])),
            "environment_key_pairs[0].server_side_key: is missing",
        ),
        (
            pairs(json!([pair("a", "ser.a"), pair("b", "hunter2")])),
            "environment_key_pairs[1].server_side_key: must begin with ser.",
        ),
        (
            pairs(json!([pair("ser.hunter2", "ser.a")])),
            "environment_key_pairs[0].client_side_key: begins with ser., so it is a server-side key",
        ),
        (
            pairs(json!([pair("hunter2", "ser.a"), pair("hunter2", "ser.b")])),
            "environment_key_pairs[1].client_side_key: is there twice",
        ),
        (
            pairs(json!([pair("a", "ser.hunter2"), pair("b", "ser.hunter2")])),
            "environment_key_pairs[1].server_side_key: is there twice",
        ),
        (
            pairs(json!([pair("", "ser.a")])),
            "environment_key_pairs[0].client_side_key: must be 1 to 1024 characters of ASCII without spaces",
        ),
        (
            pairs(json!([{"client_side_key": 7, "server_side_key": "ser.a"}])),
            "environment_key_pairs[0].client_side_key: must be a text",
        ),
        (
            with("api_url", json!("hunter2")),
            "api_url: is not a URL, use https://flagsmith.example.com/api/v1",
        ),
        (
            with("api_url", json!("ftp://hunter2")),
            "api_url: must begin with https:// or http://",
        ),
        (
            with("api_url", json!("https://a?hunter2")),
            "api_url: must end with its path",
        ),
        (
            with("api_poll_frequency_seconds", json!(0)),
            "api_poll_frequency_seconds: must be a whole number from 1 to 86400",
        ),
        (
            with("api_poll_timeout", json!("hunter2")),
            "api_poll_timeout: must be a whole number from 1 to 300",
        ),
        (
            with("health_check", json!(1)),
            "health_check: must be an object",
        ),
        (
            with(
                "health_check",
                json!({"environment_update_grace_period_seconds": -1}),
            ),
            "health_check.environment_update_grace_period_seconds: must be a whole number from 0 to 4294967294",
        ),
    ] {
        let refused = read(&file).unwrap_err();
        assert_eq!(refused, problem, "{file}");
    }
    let refused = parse(b"{\"proxy_key\": \"hunter2\",}").unwrap_err();
    assert_eq!(refused.to_string(), "is not JSON (line 1 column 25)");
}

#[test]
fn nothing_of_a_configuration_shows_a_key() {
    let file = json!({
        "environment_key_pairs": [pair("hunter2-client", "ser.hunter2")],
        "proxy_key": "pk.hunter2",
        "api_url": "https://user:hunter2@flagsmith.example.com/api/v1",
    });
    let (config, _) = read(&file).unwrap();
    assert!(!format!("{config:?} {}", config.api_url).contains("hunter2"));
}
