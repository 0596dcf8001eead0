//! The endpoint as a service behind Envoy, to compare with: what PostHog runs, made as fast as it honestly can be.
//!
//! It asks the same questions in the same order as the filter, on one thread, over one multiplexed connection to Redis:
//! who may read (one round trip for team and credential), then the ETag of a conditional request, or the payload of a
//! 200; usage is written in batches. With `--teams` it knows who may read, and only asks for the rest.

mod cache;
mod endpoint;
mod limits;
mod teams;
mod usage;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use clap::Parser;
use redis::aio::ConnectionManager;
use tokio::net::TcpListener;

use endpoint::Service;
use teams::Teams;

#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Source document with all teams and credentials, as the publisher takes it: Redis is not asked for them.
    #[arg(long)]
    teams: Option<PathBuf>,
    /// Redis with PostHog's cache. It may hold a password, hence the environment.
    #[arg(env = "REDIS_URL", hide_env_values = true)]
    redis_url: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let redis = ConnectionManager::new(redis::Client::open(options.redis_url)?).await?;
    let teams = match options.teams {
        Some(path) => {
            let document: teams::Document = serde_json::from_slice(&std::fs::read(path)?)?;
            Teams::Known(document.into())
        }
        None => Teams::Cached(redis.clone()),
    };
    let service = Arc::new(Service::new(teams, redis.clone()));
    tokio::spawn(usage::flush_for_ever(Arc::clone(&service), redis.clone()));
    tokio::spawn(limits::read_quota_for_ever(Arc::clone(&service), redis));
    let router = Router::new()
        .route("/flags/definitions", get(endpoint::definitions))
        .with_state(service);
    // What cannot be set stays as it is; it would show in latencies alone.
    let listener = TcpListener::bind(options.listen)
        .await?
        .tap_io(|connection| drop(connection.set_nodelay(true)));
    axum::serve(listener, router).await?;
    Ok(())
}
