//! Flagsmith's Edge Proxy as a service behind Envoy, to compare with: routes, checks and answers of edge-proxy-rs 0.1.0 with the
//! engine that it has, made as fast as it honestly can be.
//!
//! Documents are in memory, parsed once. Each request is evaluated by the crate, on one thread. It does less than the original,
//! never more: nothing polls, counts or traces, CORS and gzip are no layers, and gzip is as fast as the filter's.

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, ORIGIN, VARY,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use clap::Parser;
use flagsmith_flag_engine::engine::get_evaluation_result;
use flagsmith_flag_engine::engine_eval::{
    EngineEvaluationContext, add_identity_to_context, environment_to_context,
};
use flagsmith_flag_engine::environments::Environment;
use flagsmith_flag_engine::identities::Trait;
use flagsmith_flag_engine::types::FlagsmithValue;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// File with all environments: a list of objects with `client_side_key`, `server_side_key` and `document`.
    #[arg(long)]
    environments: PathBuf,
}

#[derive(Deserialize)]
struct Configured {
    client_side_key: String,
    server_side_key: String,
    document: Value,
}

/// One environment, ready to be asked.
struct Served {
    document: Value,
    context: EngineEvaluationContext,
    server_only: Vec<u32>,
}

/// All environments, by each of their keys.
struct Service {
    by_client_key: HashMap<String, Arc<Served>>,
    by_server_key: HashMap<String, Arc<Served>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let configured = serde_json::from_slice(&std::fs::read(&options.environments)?)?;
    let service = Service::new(configured)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(options.listen, service))
}

async fn serve(listen: SocketAddr, service: Service) -> Result<(), Box<dyn Error>> {
    let mut router = Router::new();
    for slash in ["", "/"] {
        router = router
            .route(&format!("/api/v1/flags{slash}"), get(flags))
            .route(
                &format!("/api/v1/identities{slash}"),
                get(identity).post(identity_with_traits),
            )
            .route(
                &format!("/api/v1/environment-document{slash}"),
                get(document),
            );
    }
    let router = router
        .layer(DefaultBodyLimit::max(2 << 20))
        .with_state(Arc::new(service));
    // What cannot be set stays as it is; it would show in latencies alone.
    let listener = TcpListener::bind(listen)
        .await?
        .tap_io(|connection| drop(connection.set_nodelay(true)));
    axum::serve(listener, router).await?;
    Ok(())
}

impl Service {
    fn new(configured: Vec<Configured>) -> Result<Self, serde_json::Error> {
        let mut all = Self {
            by_client_key: HashMap::new(),
            by_server_key: HashMap::new(),
        };
        for one in configured {
            let environment: Environment = serde_json::from_value(one.document.clone())?;
            let ids = one.document.pointer("/project/server_key_only_feature_ids");
            let ids = ids.cloned().unwrap_or_else(|| Value::Array(Vec::new()));
            let served = Arc::new(Served {
                context: environment_to_context(environment),
                server_only: serde_json::from_value(ids)?,
                document: one.document,
            });
            let client = Arc::clone(&served);
            all.by_client_key.insert(one.client_side_key, client);
            all.by_server_key.insert(one.server_side_key, served);
        }
        Ok(all)
    }

    /// The environment whose flags a client-side key reads.
    fn of_client(&self, headers: &HeaderMap) -> Result<&Served, StatusCode> {
        served(&self.by_client_key, headers)
    }
}

fn served<'s>(
    by_key: &'s HashMap<String, Arc<Served>>,
    headers: &HeaderMap,
) -> Result<&'s Served, StatusCode> {
    let key = headers.get("x-environment-key");
    let key = key.and_then(|value| value.to_str().ok());
    let found = key.and_then(|key| by_key.get(key));
    found.map(AsRef::as_ref).ok_or(StatusCode::UNAUTHORIZED)
}

#[derive(Serialize)]
struct Flag {
    enabled: bool,
    feature: Feature,
    feature_state_value: FlagsmithValue,
}

#[derive(Serialize)]
struct Feature {
    id: u32,
    name: String,
    r#type: String,
}

/// What an environment says, to the identity that is in the context.
fn evaluated(served: &Served, context: &EngineEvaluationContext) -> Vec<Flag> {
    let results = get_evaluation_result(context).flags.into_values();
    let shown = results.filter(|flag| !served.server_only.contains(&flag.metadata.feature_id));
    shown
        .map(|flag| Flag {
            enabled: flag.enabled,
            feature: Feature {
                id: flag.metadata.feature_id,
                name: flag.name,
                r#type: flag.metadata.feature_type,
            },
            feature_state_value: flag.value,
        })
        .collect()
}

#[derive(Deserialize)]
struct OneFeature {
    feature: Option<String>,
}

async fn flags(
    State(service): State<Arc<Service>>,
    Query(asked): Query<OneFeature>,
    headers: HeaderMap,
) -> Response {
    let served = match service.of_client(&headers) {
        Ok(served) => served,
        Err(status) => return status.into_response(),
    };
    let flags = evaluated(served, &served.context);
    match asked.feature {
        None => answer(&headers, &flags),
        Some(name) => match flags.iter().find(|flag| flag.feature.name == name) {
            Some(flag) => answer(&headers, flag),
            None => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

#[derive(Deserialize)]
struct Identity {
    identifier: String,
    #[serde(default)]
    traits: Vec<IdentityTrait>,
}

#[derive(Deserialize, Serialize)]
struct IdentityTrait {
    trait_key: String,
    trait_value: Value,
}

#[derive(Serialize)]
struct IdentityAnswer {
    flags: Vec<Flag>,
    traits: Vec<IdentityTrait>,
}

async fn identity(
    State(service): State<Arc<Service>>,
    Query(identity): Query<Identity>,
    headers: HeaderMap,
) -> Response {
    identify(&service, identity, &headers)
}

async fn identity_with_traits(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let content_type = headers.get(CONTENT_TYPE);
    if !content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    match serde_json::from_slice(&body) {
        Ok(identity) => identify(&service, identity, &headers),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn identify(service: &Service, identity: Identity, headers: &HeaderMap) -> Response {
    let served = match service.of_client(headers) {
        Ok(served) => served,
        Err(status) => return status.into_response(),
    };
    let traits: Vec<Trait> = identity
        .traits
        .iter()
        .map(|one| Trait {
            trait_key: one.trait_key.clone(),
            trait_value: serde_json::from_value(one.trait_value.clone()).unwrap_or_default(),
        })
        .collect();
    let context = add_identity_to_context(&served.context, &identity.identifier, &traits);
    let found = IdentityAnswer {
        flags: evaluated(served, &context),
        traits: identity.traits,
    };
    answer(headers, &found)
}

async fn document(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    match served(&service.by_server_key, &headers) {
        Ok(served) => answer(&headers, &served.document),
        Err(status) => status.into_response(),
    }
}

/// Shortest body that is compressed, in bytes.
const GZIP_FROM: usize = 32;

/// 200 with this content, in gzip form for those who accept it.
fn answer(asked: &HeaderMap, content: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_vec(content) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let accepted = asked.get(ACCEPT_ENCODING).map(HeaderValue::as_bytes);
    let accepts_gzip = accepted.is_some_and(|list| list.windows(4).any(|name| name == b"gzip"));
    let zipped = (accepts_gzip && text.len() >= GZIP_FROM)
        .then(|| gzip(&text))
        .flatten();
    let coding = zipped.is_some();
    let mut response = zipped.unwrap_or(text).into_response();
    let fields = response.headers_mut();
    let fixed = HeaderValue::from_static;
    fields.insert(CONTENT_TYPE, fixed("application/json"));
    fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, fixed("true"));
    fields.insert(
        VARY,
        fixed(
            "accept-encoding, origin, access-control-request-method, access-control-request-headers",
        ),
    );
    if coding {
        fields.insert(CONTENT_ENCODING, fixed("gzip"));
    }
    if let Some(origin) = asked.get(ORIGIN) {
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}

fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let content = Vec::with_capacity(text.len() / 4 + 32);
    let mut encoder = GzEncoder::new(content, Compression::new(4));
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}
