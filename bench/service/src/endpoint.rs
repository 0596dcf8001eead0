//! `GET /flags/definitions`: the checks in PostHog's order, and the answers.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_METHODS, AUTHORIZATION, CACHE_CONTROL,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, USER_AGENT, VARY,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use redis::aio::ConnectionManager;
use serde::Deserialize;

use crate::cache;
use crate::limits::Limits;
use crate::teams::Teams;
use crate::usage::Usage;

/// What all requests share.
pub struct Service {
    teams: Teams,
    redis: ConnectionManager,
    pub limits: Limits,
    pub usage: Usage,
}

impl Service {
    pub fn new(teams: Teams, redis: ConnectionManager) -> Self {
        Self {
            teams,
            redis,
            limits: Limits::new(),
            usage: Usage::default(),
        }
    }
}

#[derive(Deserialize)]
pub struct Parameters {
    #[serde(default)]
    token: String,
}

/// CORS, as on every answer of the endpoint. No client of the benchmark sends an origin to mirror.
const CORS: [(HeaderName, &str); 3] = [
    (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
    (ACCESS_CONTROL_ALLOW_METHODS, "GET,POST,OPTIONS,HEAD"),
    (
        VARY,
        "origin, access-control-request-method, access-control-request-headers",
    ),
];

const PRIVATE: (HeaderName, &str) = (CACHE_CONTROL, "private, must-revalidate");

pub async fn definitions(
    State(service): State<Arc<Service>>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    match answer(&service, &parameters.token, &headers).await {
        Ok(response) => response,
        Err(status) => (status, CORS).into_response(),
    }
}

async fn answer(
    service: &Service,
    token: &str,
    headers: &HeaderMap,
) -> Result<Response, StatusCode> {
    let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let secret = field(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let secret = secret.ok_or(StatusCode::UNAUTHORIZED)?.trim();
    let team = service.teams.admitted(token, secret).await;
    let team = team.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let team = team.ok_or(StatusCode::UNAUTHORIZED)?;
    let held = field(IF_NONE_MATCH);
    if !service.limits.admit(team, held.is_some()) {
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    if service.limits.over_quota(token) {
        return Err(StatusCode::PAYMENT_REQUIRED);
    }
    if let Some(held) = held {
        let current = cache::etag(&service.redis, team).await;
        let current = current.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        if let Some(etag) = current.filter(|etag| bare(held) == etag) {
            let etag = (ETAG, format!("W/\"{etag}\""));
            return Ok((StatusCode::NOT_MODIFIED, [etag], [PRIVATE], CORS).into_response());
        }
    }
    let found = cache::payload(&service.redis, team).await;
    let found = found.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let (payload, etag) = found.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let user_agent = field(USER_AGENT).unwrap_or_default();
    service.usage.count(team, user_agent, &payload);
    let etag = (ETAG, format!("W/\"{etag}\""));
    let json = (CONTENT_TYPE, "application/json");
    Ok((StatusCode::OK, [etag], [PRIVATE, json], CORS, payload).into_response())
}

/// The ETag in a validator, compared the way PostHog's service does: without `W/` and quotes.
fn bare(validator: &str) -> &str {
    let validator = validator.trim();
    validator
        .strip_prefix("W/")
        .unwrap_or(validator)
        .trim_matches('"')
}
