//! `POST /v1/await`.

use std::fmt;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use tombolo_codec::{AwaitScope, Laggard, limits};

use super::problem::Problem;
use super::{App, body};
use crate::admission;
use crate::service::{Goal, Service};

const TIMEOUT_MS_DEFAULT: u64 = 5_000;
/// More names than there can be regions.
const NAMES_MAX: usize = 1_024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AwaitBody {
    token: Option<String>,
    revision: Option<u64>,
    #[serde(default = "Scope::all")]
    regions: Scope,
    timeout_ms: Option<u64>,
}

/// `"all"`, `["us-east"]` or `{"at_least": 2}`; written by hand, for errors that say so.
#[derive(Debug)]
struct Scope(AwaitScope);

impl Scope {
    fn all() -> Self {
        Self(AwaitScope::All)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScopeVisitor).map(Self)
    }
}

struct ScopeVisitor;

impl<'de> Visitor<'de> for ScopeVisitor {
    type Value = AwaitScope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#""all", a list of region names, or {"at_least": n}"#)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AwaitScope, E> {
        if text == "all" {
            Ok(AwaitScope::All)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AwaitScope, A::Error> {
        let mut names: Vec<String> = Vec::new();
        while let Some(name) = seq.next_element()? {
            if names.len() == NAMES_MAX {
                return Err(de::Error::custom(format!("more than {NAMES_MAX} region names")));
            }
            names.push(name);
        }
        if names.is_empty() {
            return Err(de::Error::custom("a list of no regions; name at least one"));
        }
        Ok(AwaitScope::Named(names))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AwaitScope, A::Error> {
        let mut at_least = None;
        while let Some(field) = map.next_key::<String>()? {
            if field != "at_least" || at_least.is_some() {
                return Err(de::Error::unknown_field(&field, &["at_least"]));
            }
            at_least = Some(map.next_value()?);
        }
        at_least.map(AwaitScope::AtLeast).ok_or_else(|| de::Error::missing_field("at_least"))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct AwaitAnswer {
    reached: bool,
    waited_ms: f64,
    laggards: Vec<LaggardAnswer>,
}

#[derive(Debug, Serialize)]
struct LaggardAnswer {
    region: String,
    reason: &'static str,
    /// What is known beyond the reason; may be empty.
    detail: String,
    behind_ops: u64,
    /// RFC 3339; `null` while it is in reach.
    since: Option<String>,
}

impl From<Laggard> for LaggardAnswer {
    fn from(laggard: Laggard) -> Self {
        let since = laggard.since_unix_ms.and_then(|ms| {
            let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
            Some(time.to_string())
        });
        let Laggard { region, reason, detail, behind_ops, .. } = laggard;
        Self { region, reason: reason.name(), detail, behind_ops, since }
    }
}

pub(super) async fn wait<S: Service>(
    State(app): State<App<S>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AwaitAnswer>, Problem> {
    app.caller(&headers)?;
    let body: AwaitBody = body::json(&headers, body).await?;
    let goal = match (body.token, body.revision) {
        (Some(token), None) => Goal::Token(admission::open_token(&token, app.service.seal_key())?),
        (None, Some(revision)) => Goal::Revision(revision),
        (None, None) => {
            let text = "`token` or `revision` is missing: give what a write was answered with, or a revision's number";
            return Err(Problem::malformed(text));
        }
        (Some(_), Some(_)) => {
            return Err(Problem::malformed("both `token` and `revision` are there; await one of them"));
        }
    };
    let timeout =
        admission::check_timeout(body.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT.min(limits::AWAIT_MS_MAX)))?;
    let awaited = admission::wait(&app.service, goal, body.regions.0, timeout).await?;
    Ok(Json(AwaitAnswer {
        reached: awaited.reached,
        waited_ms: awaited.waited.as_secs_f64() * 1_000.0,
        laggards: awaited.laggards.into_iter().map(LaggardAnswer::from).collect(),
    }))
}
