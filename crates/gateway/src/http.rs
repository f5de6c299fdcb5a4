//! The HTTP door: JSON in, JSON out, errors as RFC 9457 problems.
//!
//! Counters are decimal strings, so that no client loses digits; bodies are limited before they are held in memory.
//! The routes stand in [`http_router`]; `http/problem.rs` says how a refusal is printed, `http/body.rs` how a body is
//! read.

mod barrier;
mod body;
mod keys;
mod operate;
mod ops;
mod problem;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tombolo_codec::{Reject, RejectCode};

pub use self::ops::read_ops;
use self::problem::Problem;
use crate::connections::Stop;
use crate::service::Caller;
use crate::{DoorStats, Service, connections};

/// How long a connection may take to send the head of its next request, and so how long it may idle between two.
const HEAD_MAX: Duration = Duration::from_secs(75);
/// Beyond the connections a door holds.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n";

/// Told to who asks for what is not there; the routes of [`http_router`].
const ROUTES: &str = "there are POST /v1/ops, /v1/sessions, /v1/read, /v1/await; GET /v1/keys/{key}, /v1/status, \
                      /v1/digest, /livez, /readyz, /startupz, /metrics, /version; POST /v1/admin/checkpoint, \
                      /v1/admin/pause-apply, /v1/admin/resume-apply; GET and POST /v1/admin/regions; \
                      POST /v1/admin/verify; GET /v1/admin/reconcile";

/// What every handler shares.
#[derive(Clone)]
struct App<S> {
    service: S,
    stats: Arc<DoorStats>,
}

impl<S: Service> App<S> {
    /// Who asks, by the `Authorization` header.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        Ok(self.service.authenticate(credential(headers)?)?)
    }

    fn admin(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let caller = self.caller(headers)?;
        if !caller.is_admin {
            let text = "this needs the admin token in `Authorization: Bearer …`";
            return Err(Reject::new(RejectCode::Forbidden, text).into());
        }
        Ok(caller)
    }
}

fn credential(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let bearer = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match bearer {
        Some(token) => Ok(Some(token)),
        None => {
            let text = "the `Authorization` header is not of the form `Bearer <token>`";
            Err(Reject::new(RejectCode::Unauthenticated, text).into())
        }
    }
}

/// All routes, for a server or a test that drives them without a socket.
pub fn http_router<S: Service>(service: S, stats: Arc<DoorStats>) -> Router {
    let app = App { service, stats };
    Router::new()
        .route("/v1/sessions", post(ops::open_session::<S>))
        .route("/v1/ops", post(ops::write::<S>))
        .route("/v1/keys/{key}", get(keys::get::<S>))
        .route("/v1/read", post(keys::read::<S>))
        .route("/v1/await", post(barrier::wait::<S>))
        .route("/v1/status", get(operate::status::<S>))
        .route("/v1/digest", get(operate::digest::<S>))
        .route("/v1/admin/pause-apply", post(operate::pause::<S>))
        .route("/v1/admin/resume-apply", post(operate::resume::<S>))
        .route("/v1/admin/regions", get(operate::regions::<S>).post(operate::change_regions::<S>))
        .route("/v1/admin/verify", post(operate::verify::<S>))
        .route("/v1/admin/reconcile", get(operate::reconciliation::<S>).post(operate::reconciliation::<S>))
        .route("/v1/admin/checkpoint", post(operate::checkpoint::<S>))
        .route("/livez", get(operate::live))
        .route("/readyz", get(operate::ready::<S>))
        .route("/startupz", get(operate::ready::<S>))
        .route("/metrics", get(operate::metrics::<S>))
        .route("/version", get(operate::version))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), around::<S>))
        .with_state(app)
}

/// Counts, and names the region in every answer.
async fn around<S: Service>(State(app): State<App<S>>, request: Request, next: Next) -> Response {
    app.stats.count_request();
    let mut response = next.run(request).await;
    if let Some(code) = response.extensions().get::<RejectCode>() {
        app.stats.count_reject(*code);
    }
    if let Ok(region) = HeaderValue::from_str(&app.service.identity().name) {
        response.headers_mut().insert("tombolo-region", region);
    }
    response
}

async fn no_route(request: Request) -> Problem {
    let text = format!("nothing is at {}; {ROUTES}", request.uri().path());
    Reject::new(RejectCode::NotFound, text).into()
}

async fn wrong_method(request: Request) -> Problem {
    let text = format!("{} does not take {}; see the `Allow` header", request.uri().path(), request.method());
    Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, Reject::new(RejectCode::NotSupported, text))
}

/// Serves the door until `shutdown` is done; then what is under way gets a few seconds.
pub async fn serve_http<S: Service>(
    listener: TcpListener,
    service: S,
    stats: Arc<DoorStats>,
    shutdown: impl Future<Output = ()>,
) {
    let connections_max = service.identity().connections_max;
    let router = http_router(service, stats.clone());
    connections::accept_all(listener, connections_max, stats, FULL, shutdown, |stream, stop| {
        serve_connection(stream, router.clone(), stop)
    })
    .await;
}

async fn serve_connection(stream: TcpStream, router: Router, mut stop: Stop) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
