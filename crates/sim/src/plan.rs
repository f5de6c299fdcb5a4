//! [`Plan`]: what a seed draws before anything happens: how many regions, how bad the weather, which faults at all.
//!
//! Each kind of fault is off in about a third of the seeds: a fault that never rests hides what only its absence shows.

use tombolo_replica::PeerLimits;

use crate::chance::Chance;
use crate::queue::{MS, Micros, SECOND};
use crate::sabotage::Sabotage;
use crate::suit::Suit;

/// A kind of fault that strikes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// One direction between two regions carries nothing for a while.
    CutOneWay,
    /// Two regions are apart for a while.
    CutBothWays,
    /// One region is apart from all others for a while.
    Isolate,
    /// One direction is slow for a while.
    Clog,
    /// A connection ends at once.
    Break,
    /// A process dies; the machine keeps what was written.
    Kill,
    /// The power goes.
    PowerCut,
    /// The power goes some disk operations from here.
    PowerCutInside,
    /// A process dies; before it starts again bits of its disk have rotted.
    Rot,
    /// A process dies; its disk comes back as it once was.
    Restore,
    /// A sync fails.
    SyncFailure,
    /// A disk is full for a while.
    FullDisk,
    /// A disk hangs for a while.
    SlowDisk,
    /// A wall clock jumps.
    ClockJump,
    /// A region stops applying what another one wrote, for a while.
    Pause,
}

impl Fault {
    const ALL: [Self; 15] = [
        Self::CutOneWay,
        Self::CutBothWays,
        Self::Isolate,
        Self::Clog,
        Self::Break,
        Self::Kill,
        Self::PowerCut,
        Self::PowerCutInside,
        Self::Rot,
        Self::Restore,
        Self::SyncFailure,
        Self::FullDisk,
        Self::SlowDisk,
        Self::ClockJump,
        Self::Pause,
    ];
}

/// One directed pair of regions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) latency: Micros,
    pub(crate) jitter: Micros,
    pub(crate) loss_percent: u64,
    pub(crate) replay_percent: u64,
}

/// One node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodePlan {
    /// Whether writes are answered before their sync.
    pub(crate) is_relaxed: bool,
    pub(crate) sync_takes: Micros,
    pub(crate) offset_us: i64,
    pub(crate) drift_ppm: i64,
}

/// What a seed draws at its start.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) shards: u16,
    pub(crate) threads: usize,
    pub(crate) nodes: Vec<NodePlan>,
    /// By source, then destination.
    pub(crate) paths: Vec<Vec<Path>>,
    pub(crate) segment_bytes: u64,
    pub(crate) session_numbers_max: usize,
    pub(crate) journal_bytes: u64,
    /// For how long anything may be sent again.
    pub(crate) window: Micros,
    pub(crate) checkpoint_every: Option<Micros>,
    pub(crate) is_pruning: bool,
    /// Whether logs are pruned although a member lacks what goes.
    pub(crate) is_retention_short: bool,
    /// What a peer may cost: often so little that small worlds meet the bounds.
    pub(crate) peer_limits: PeerLimits,
    /// Keys of each kind that all clients share.
    pub(crate) keys: u64,
    pub(crate) clients: usize,
    pub(crate) think: Micros,
    pub(crate) timeout: Micros,
    pub(crate) request_loss_percent: u64,
    /// When a region is removed for good.
    pub(crate) removals_at: Vec<Micros>,
    /// When the last region comes, if it is not there from the beginning.
    pub(crate) adds_at: Option<Micros>,
    /// Kinds of faults with the mean time between two.
    pub(crate) faults: Vec<(Fault, Micros)>,
}

impl Plan {
    pub(crate) fn draw(chance: &mut Chance, sabotage: Sabotage, suit: &Suit) -> Self {
        let drawn = chance.range(2, 5);
        let count = if suit.is_removing { drawn.max(3) } else { drawn };
        let mut is_on = || chance.percent(66);
        let (is_lossy, is_replaying, has_checkpoints, is_skewed) = (is_on(), is_on(), is_on(), is_on());
        let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| is_on()).collect();
        sabotage.adjust(&mut faults);
        suit.adjust(&mut faults);
        let has_checkpoints = suit.has_checkpoints.unwrap_or(has_checkpoints);
        // Forgetting is right only where clocks keep within their bound.
        let is_expiring = suit.is_expiring.unwrap_or(is_on() && is_on());
        if is_expiring {
            faults.retain(|fault| *fault != Fault::ClockJump);
        }
        let calm = if is_on() { 1 } else { 3 };
        let faults = faults.into_iter().map(|fault| (fault, calm * chance.range(4, 30) * SECOND)).collect();
        let relaxed_percent = if chance.percent(25) { 50 } else { 0 };
        let nodes = (0..count).map(|_| NodePlan {
            is_relaxed: chance.percent(relaxed_percent),
            sync_takes: chance.range(100, 4_000),
            offset_us: if is_skewed { signed(chance, 200 * MS) } else { signed(chance, 5 * MS) },
            drift_ppm: if is_skewed { signed(chance, 300) } else { 0 },
        });
        let nodes: Vec<NodePlan> = nodes.collect();
        let path = |chance: &mut Chance| {
            let most = if chance.percent(30) { 120 * MS } else { 20 * MS };
            let latency = chance.range(200, most);
            Path {
                latency,
                jitter: chance.below(latency),
                loss_percent: if is_lossy { chance.below(31) } else { 0 },
                replay_percent: if is_replaying { chance.below(51) } else { 0 },
            }
        };
        let mut paths = Vec::new();
        for _ in &nodes {
            paths.push(nodes.iter().map(|_| path(chance)).collect());
        }
        let clients = chance.range(3, 12);
        let is_retention_short = chance.percent(50);
        let mut peer_limits = PeerLimits { cuts_max: chance.index(3) + 1, ..PeerLimits::default() };
        if chance.percent(50) {
            peer_limits.window_bytes = 3_000 + chance.index(30_000);
        }
        if chance.percent(50) {
            peer_limits.entries_bytes = 200 + chance.index(1_800);
            // So few that entries are taken for one another.
            peer_limits.digest_bytes = 1 + (peer_limits.entries_bytes % 4) as u8;
        }
        peer_limits.window_bytes = suit.window_bytes.unwrap_or(peer_limits.window_bytes);
        // Where tombstones go soon and histories too, one region may miss that the other let go.
        let is_hasty = suit.is_retention_short == Some(true) || chance.percent(40);
        let window = if is_hasty { chance.range(4, 6) } else { chance.range(4, 20) } * SECOND;
        let checkpoint_ms = if is_hasty { chance.range(1_000, 4_000) } else { chance.range(1_500, 15_000) };
        // A removed region's late batches need some time to come.
        let removals_count = match count {
            0..3 => 0,
            3 => usize::from(suit.is_removing || chance.percent(30)),
            _ => {
                if suit.is_removing || chance.percent(40) {
                    1 + chance.index(2)
                } else {
                    0
                }
            }
        };
        let removals_at = (0..removals_count).map(|_| chance.range(2_000, 22_000) * MS).collect();
        let adds_at = (count > 2 && chance.percent(25)).then(|| chance.range(1_000, 20_000) * MS);
        Self {
            removals_at,
            adds_at,
            shards: u16::try_from(chance.range(1, 4)).expect("four at most"),
            threads: chance.index(2) + 1,
            nodes,
            paths,
            segment_bytes: chance.range(2_000, 60_000),
            session_numbers_max: chance.index(60) + 8,
            journal_bytes: chance.range(10_000, 120_000),
            window: if is_expiring { window } else { 86_400 * SECOND },
            checkpoint_every: has_checkpoints.then_some(checkpoint_ms * MS),
            is_pruning: has_checkpoints && (chance.percent(80) || suit.is_retention_short == Some(true)),
            is_retention_short: suit.is_retention_short.unwrap_or(is_retention_short),
            peer_limits,
            keys: if chance.percent(50) && !suit.is_calm { 4 } else { chance.range(20, 100) },
            clients: usize::try_from(clients).expect("a few"),
            think: clients * SECOND / 55,
            timeout: chance.range(200, 2_000) * MS,
            request_loss_percent: chance.below(8),
            faults,
        }
    }
}

/// Between `-most` and `most`.
pub(crate) fn signed(chance: &mut Chance, most: u64) -> i64 {
    i64::try_from(chance.below(2 * most + 1)).expect("small") - i64::try_from(most).expect("small")
}
