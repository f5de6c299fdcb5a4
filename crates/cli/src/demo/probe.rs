//! How soon a write is readable elsewhere: a counter per region, written now and then and read in all other regions.
//!
//! Measures only while no link is cut and none has just healed; it goes on writing meanwhile. Start with [`Probe::run`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tombolo_sdk::{Client, Session, Token};
use tombolo_testbed::percentiles::Latencies;

use super::Phase;

/// From one probe to the next.
const PROBE_EVERY: Duration = Duration::from_millis(40);

/// Writes in one region, reads in the others.
pub(super) struct Probe {
    /// Its counter.
    pub(super) key: String,
    /// Where it writes.
    pub(super) session: Session,
    /// Where it reads.
    pub(super) others: Vec<Client>,
    /// What happens to the network meanwhile.
    pub(super) phase: watch::Receiver<Phase>,
}

/// What a probe found.
#[derive(Default)]
pub(super) struct Probed {
    /// Adds that were answered.
    pub(super) count: i64,
    /// From sending an add to reading it elsewhere.
    pub(super) visible: Latencies,
    /// Adds or reads that failed, and why the first did.
    pub(super) failures_count: u64,
    pub(super) failure: Option<String>,
}

impl Probe {
    /// Probes until the replay is over.
    pub(super) async fn run(self) -> Probed {
        let (key, mut probed, mut reads) = (Arc::<str>::from(self.key), Probed::default(), JoinSet::new());
        let counter = self.session.counter(&*key);
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while *self.phase.borrow() != Phase::Over {
            ticks.tick().await;
            let (sent, phase) = (Instant::now(), *self.phase.borrow());
            match counter.incr(1).await {
                Ok(written) => {
                    probed.count += 1;
                    let clients = self.others.iter().filter(|_| phase.is_whole());
                    for client in clients {
                        let (client, key, token) = (client.clone(), key.clone(), written.token.clone());
                        reads.spawn(async move { (phase, read_after(&client, &key, &token, sent).await) });
                    }
                }
                Err(error) => probed.fail(&error.to_string()),
            }
            while let Some(read) = reads.try_join_next() {
                probed.take(read.expect("a read does not panic and is not aborted"), *self.phase.borrow());
            }
        }
        while let Some(read) = reads.join_next().await {
            probed.take(read.expect("a read does not panic and is not aborted"), Phase::Over);
        }
        probed
    }
}

impl Probed {
    /// A read that a cut fell into says something of the cut, not of the way.
    fn take(&mut self, (began, read): (Phase, Result<Duration, String>), now: Phase) {
        match read {
            Ok(latency) if began == now || now == Phase::Over && began == Phase::Healed => {
                self.visible.record(latency)
            }
            Ok(_) => {}
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &str) {
        self.failures_count += 1;
        self.failure.get_or_insert_with(|| error.to_owned());
    }
}

/// Reads a key once the region covers a token; gives the time since it was sent.
async fn read_after(client: &Client, key: &str, token: &Token, sent: Instant) -> Result<Duration, String> {
    client.read(&[key], Some(token)).await.map(|_| sent.elapsed()).map_err(|error| error.to_string())
}
