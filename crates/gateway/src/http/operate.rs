//! What operators and their machines ask: health, status, digests, metrics, and `/v1/admin`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::ops::NoFields;
use super::problem::Problem;
use super::{App, body};
use crate::admission;
use crate::reconciliation::{Reconciliation, Verification, VerifyRequest};
use crate::regions::{Regions, RegionsRequest};
use crate::service::Service;
use crate::status::{ShardDigest, Status};

#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: &'static str,
}

pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Recovery decides, never the state of a peer.
pub(super) async fn ready<S: Service>(State(app): State<App<S>>) -> Result<Json<Health>, Problem> {
    admission::check_ready(&app.service)?;
    Ok(Json(Health { status: "ok" }))
}

#[derive(Debug, Serialize)]
pub(super) struct Version {
    schema: &'static str,
    version: &'static str,
}

pub(super) async fn version() -> Json<Version> {
    Json(Version { schema: "tombolo.version/v1", version: env!("CARGO_PKG_VERSION") })
}

pub(super) async fn metrics<S: Service>(State(app): State<App<S>>) -> Result<impl IntoResponse, Problem> {
    let text = admission::report(app.service.metrics()).await?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

pub(super) async fn status<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
) -> Result<Json<Status>, Problem> {
    app.caller(&headers)?;
    Ok(Json(admission::report(app.service.status()).await?))
}

pub(super) async fn digest<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
) -> Result<Json<Vec<ShardDigest>>, Problem> {
    app.caller(&headers)?;
    Ok(Json(admission::report(app.service.digest()).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerBody {
    peer: String,
}

#[derive(Debug, Serialize)]
pub(super) struct PeerAnswer {
    peer: String,
    paused: bool,
}

pub(super) async fn pause<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PeerAnswer>, Problem> {
    set_paused(&app, &headers, body, true).await
}

pub(super) async fn resume<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PeerAnswer>, Problem> {
    set_paused(&app, &headers, body, false).await
}

async fn set_paused<S: Service>(
    app: &App<S>,
    headers: &HeaderMap,
    body: Body,
    is_paused: bool,
) -> Result<Json<PeerAnswer>, Problem> {
    app.admin(headers)?;
    let PeerBody { peer } = body::json(headers, body).await?;
    admission::report(app.service.pause_apply(&peer, is_paused)).await??;
    Ok(Json(PeerAnswer { peer, paused: is_paused }))
}

pub(super) async fn regions<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
) -> Result<Json<Regions>, Problem> {
    app.admin(&headers)?;
    Ok(Json(admission::report(app.service.regions()).await?))
}

pub(super) async fn change_regions<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Regions>, Problem> {
    app.admin(&headers)?;
    let request: RegionsRequest = body::json(&headers, body).await?;
    Ok(Json(admission::report(app.service.change_regions(request)).await??))
}

pub(super) async fn verify<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Verification>, Problem> {
    app.admin(&headers)?;
    let request: VerifyRequest = body::json_or_default(&headers, body).await?;
    // Comparing all shards takes as long as they are large; the caller may hang up at any time.
    Ok(Json(app.service.verify(request).await?))
}

pub(super) async fn reconciliation<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
) -> Result<Json<Reconciliation>, Problem> {
    app.admin(&headers)?;
    Ok(Json(admission::report(app.service.reconciliation()).await?))
}

#[derive(Debug, Serialize)]
pub(super) struct CheckpointAnswer {
    shards: usize,
}

pub(super) async fn checkpoint<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CheckpointAnswer>, Problem> {
    app.admin(&headers)?;
    let NoFields {} = body::json_or_default(&headers, body).await?;
    // Writing all shards out takes as long as the disk takes; the caller may hang up at any time.
    let shards = app.service.checkpoint().await?;
    Ok(Json(CheckpointAnswer { shards }))
}
