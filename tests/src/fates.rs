//! Ops whose fate can be read off one by one, by their digits: see [`crate::digits`].
//!
//! Start with [`Fates::drive`], end with [`Fates::check`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tombolo_sdk::{Client, Session};

use crate::digits::{self, OPS_PER_KEY};
use crate::values;

/// Time between two ops.
const EVERY: Duration = Duration::from_millis(3);
/// Ops that wait for their answers.
const IN_FLIGHT_MAX: usize = 512;

#[derive(Debug, Clone)]
enum Answer {
    Awaited,
    Acked { at: Instant, is_replayed: bool, is_conditional: bool },
    Failed(String),
}

/// The ops of one writer, in the order they were handed over.
#[derive(Clone)]
pub struct Fates {
    name: String,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Fates {
    /// None yet; `name` begins the keys.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), answers: Arc::default() }
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of an op.
    #[must_use]
    pub fn key(&self, op: usize) -> String {
        digits::key(&self.name, op)
    }

    /// How many ops there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends an op every few milliseconds, whether or not earlier ones were answered, until `stop`; returns once all
    /// are answered.
    pub async fn drive(&self, session: Session, mut stop: watch::Receiver<bool>) {
        let mut calls = JoinSet::new();
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                _ = ticks.tick(), if calls.len() < IN_FLIGHT_MAX => {}
                Some(_) = calls.join_next() => continue,
            }
            let op = self.len();
            self.answers().push(Answer::Awaited);
            let (counter, fates) = (session.counter(self.key(op)), self.clone());
            calls.spawn(async move {
                let answer = match counter.incr(digits::delta(op)).await {
                    Ok(written) => Answer::Acked {
                        at: Instant::now(),
                        is_replayed: written.replayed,
                        is_conditional: written.conditional,
                    },
                    Err(error) => Answer::Failed(error.to_string()),
                };
                fates.answers()[op] = answer;
            });
        }
        while calls.join_next().await.is_some() {}
    }

    /// Sabotage: an op that was never sent is said to be acked.
    pub fn pretend_one_more(&self) {
        self.answers().push(Answer::Acked { at: Instant::now(), is_replayed: false, is_conditional: false });
    }

    /// How many ops were answered by a region that had logged them before.
    #[must_use]
    pub fn replayed_count(&self) -> usize {
        self.answers()
            .iter()
            .filter(|answer| matches!(answer, Answer::Acked { is_replayed: true, .. }))
            .count()
    }

    /// The ops that were answered by a region other than their session's authority.
    #[must_use]
    pub fn conditional(&self) -> Vec<usize> {
        let answers = self.answers();
        let is_conditional = |answer: &Answer| matches!(answer, Answer::Acked { is_conditional: true, .. });
        (0..answers.len()).filter(|op| is_conditional(&answers[*op])).collect()
    }

    /// The longest time between two acks that followed each other.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let at = |answer: &Answer| match answer {
            Answer::Acked { at, .. } => Some(*at),
            _ => None,
        };
        let mut acks: Vec<Instant> = self.answers().iter().filter_map(at).collect();
        acks.sort_unstable();
        acks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Ops that were not acked, and why.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let answers = self.answers();
        let failure = |(op, answer): (usize, &Answer)| match answer {
            Answer::Acked { .. } => None,
            Answer::Awaited => Some(format!("op {op} of {}: no answer", self.name)),
            Answer::Failed(text) => Some(format!("op {op} of {}: {text}", self.name)),
        };
        answers.iter().enumerate().filter_map(failure).collect()
    }

    /// The ops that were acked before `instant`.
    #[must_use]
    pub fn acked_before(&self, instant: Instant) -> Vec<usize> {
        let answers = self.answers();
        let is_acked = |answer: &Answer| matches!(answer, Answer::Acked { at, .. } if *at < instant);
        (0..answers.len()).filter(|op| is_acked(&answers[*op])).collect()
    }

    /// How long after `instant` the first op was acked that was not acked by then.
    #[must_use]
    pub fn first_ack_after(&self, instant: Instant) -> Option<Duration> {
        let since = |answer: &Answer| match answer {
            Answer::Acked { at, .. } => at.checked_duration_since(instant),
            _ => None,
        };
        self.answers().iter().filter_map(since).min()
    }

    /// How often each op counts in a region.
    ///
    /// Panics: if the region does not answer.
    pub async fn counts(&self, client: &Client) -> Vec<u8> {
        let count = self.len();
        let keys: Vec<String> = (0..count).step_by(OPS_PER_KEY).map(|op| self.key(op)).collect();
        let values = values::read(client, &keys).await;
        let value = |op| values[&self.key(op)].as_deref().unwrap_or("0").parse::<i128>();
        (0..count).map(|op| digits::digit(value(op).expect("a sum of positive numbers"), op)).collect()
    }

    /// What is wrong in a region: an acked op that does not count once, or one that counts more than once.
    ///
    /// Panics: if the region does not answer.
    pub async fn check(&self, region: &str, client: &Client) -> Vec<String> {
        let counts = self.counts(client).await;
        let answers = self.answers();
        let wrong = |(op, count): (usize, u8)| {
            let is_right = match answers[op] {
                Answer::Acked { .. } => count == 1,
                Answer::Awaited | Answer::Failed(_) => count <= 1,
            };
            (!is_right).then(|| {
                let (name, answer) = (&self.name, &answers[op]);
                format!("{region}: op {op} of {name} counts {count} times ({answer:?})")
            })
        };
        counts.into_iter().enumerate().filter_map(wrong).collect()
    }
}
