//! The open loop that mutates: one write each time one is due, and one barrier on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tombolo_sdk::{Awaited, Client, Scope, Session, Token};
use tombolo_testbed::percentiles::Latencies;

use super::KEY;

/// Writes and barriers under way; beyond it a mutation waits, and its latency grows.
const IN_FLIGHT_MAX: usize = 1_024;

/// The tokens of the latest mutations, as far back as callers ask.
#[derive(Clone)]
pub(super) struct History {
    tokens: Arc<Mutex<VecDeque<Token>>>,
    tokens_max: usize,
}

impl History {
    pub(super) fn new(offset: usize) -> Self {
        Self { tokens: Arc::default(), tokens_max: offset + 1 }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, token: Token) {
        let mut tokens = self.lock();
        if tokens.len() == self.tokens_max {
            tokens.pop_front();
        }
        tokens.push_back(token);
    }

    /// The token as many mutations back as asked; none before there were as many.
    pub(super) fn wanted(&self) -> Option<Token> {
        let tokens = self.lock();
        (tokens.len() == self.tokens_max).then(|| tokens.front().cloned()).flatten()
    }
}

/// Writes on time.
pub(super) struct Mutator {
    pub(super) session: Session,
    pub(super) client: Client,
    pub(super) history: History,
    pub(super) timeout: Duration,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Mutated {
    pub(super) accepted: u64,
    /// Writes and barriers that were answered with an error.
    pub(super) failed: u64,
    pub(super) timeouts: u64,
    /// Covers all that was accepted.
    pub(super) token: Token,
    /// From when a mutation was due until it was answered.
    pub(super) acks: Latencies,
    /// From when it was due until all regions held it.
    pub(super) reached: Latencies,
    pub(super) laggards: Vec<String>,
    pub(super) failure: Option<String>,
}

enum Done {
    Reached(Token, Duration, Duration),
    Late(Token, Awaited),
    Failed(String),
}

impl Mutator {
    /// Until `end`; what was due before `window` is not counted in latencies.
    pub(super) async fn run(self, rate: u32, window: Instant, end: Instant) -> Mutated {
        let (mut mutated, mut tasks) = (Mutated::default(), JoinSet::new());
        let start = Instant::now();
        for number in 0.. {
            let due = start + Duration::from_nanos(1_000_000_000 * number / u64::from(rate));
            if due >= end {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            while tasks.len() >= IN_FLIGHT_MAX
                && let Some(done) = tasks.join_next().await
            {
                mutated.take(done, window);
            }
            tasks.spawn(self.mutate(due));
            while let Some(done) = tasks.try_join_next() {
                mutated.take(done, window);
            }
        }
        while let Some(done) = tasks.join_next().await {
            mutated.take(done, window);
        }
        mutated
    }

    fn mutate(&self, due: Instant) -> impl Future<Output = (Instant, Done)> + Send + use<> {
        let (counter, client) = (self.session.counter(KEY), self.client.clone());
        let (history, timeout) = (self.history.clone(), self.timeout);
        async move {
            let token = match counter.incr(1).await {
                Ok(written) => written.token,
                Err(error) => return (due, Done::Failed(error.to_string())),
            };
            let acked = due.elapsed();
            history.push(token.clone());
            let done = match client.wait(&token, Scope::All, timeout).await {
                Ok(awaited) if awaited.reached => Done::Reached(token, acked, due.elapsed()),
                Ok(awaited) => Done::Late(token, awaited),
                Err(error) => Done::Failed(error.to_string()),
            };
            (due, done)
        }
    }
}

impl Mutated {
    fn take(&mut self, done: Result<(Instant, Done), tokio::task::JoinError>, window: Instant) {
        let (due, done) = match done {
            Ok(done) => done,
            Err(error) => (window, Done::Failed(error.to_string())),
        };
        match done {
            Done::Reached(token, acked, reached) => {
                self.accept(&token);
                if due >= window {
                    self.acks.record(acked);
                    self.reached.record(reached);
                }
            }
            Done::Late(token, awaited) => {
                self.accept(&token);
                self.timeouts += 1;
                note_laggards(&mut self.laggards, &awaited);
            }
            Done::Failed(text) => {
                self.failed += 1;
                self.failure.get_or_insert(text);
            }
        }
    }

    fn accept(&mut self, token: &Token) {
        self.accepted += 1;
        self.token.join(token);
    }
}

/// Keeps each region with each reason once.
pub(super) fn note_laggards(laggards: &mut Vec<String>, awaited: &Awaited) {
    for laggard in &awaited.laggards {
        let text = format!("{} ({})", laggard.region, laggard.reason);
        if !laggards.contains(&text) {
            laggards.push(text);
        }
    }
}
