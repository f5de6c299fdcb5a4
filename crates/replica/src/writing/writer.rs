//! This region's own log of the shard: ops are staged into the open batch; closed batches wait for their sync.
//!
//! While a batch is being synced the next one fills: that is group commit. Where batches gather several callers, the
//! writer also keeps a pace: it closes no more often than every few milliseconds, which saves most of the syncs in all
//! regions. A lone caller, who waits for each answer before it asks again, is never made to wait.

use std::collections::VecDeque;

use hashbrown::HashMap;
use tombolo_causality::{ClusterId, LogId, Seq, SessionId, ShardId, Stamp, Time};
use tombolo_codec::batch::Place;
use tombolo_codec::records::SessionOp;
use tombolo_codec::{Batch, CellName, Digest, Kind, PayloadDigest, RecordsBuilder, limits};

use crate::effect::Outcome;
use crate::input::Ticket;
use crate::state::logs::{LogName, log_id};

/// Closed batches that may wait to be answered: for their sync, or where answers do not wait for that, to be staged.
const UNANSWERED_MAX: usize = 4;
/// Closed batches that may wait for their sync.
const IN_FLIGHT_MAX: usize = 256;
/// An open batch this long is closed although another one is still being synced.
const OVERLAP_BYTES: usize = 128 * 1_024;
/// The longest time between two batches that the writer waits for more callers, in milliseconds.
const PACE_MS_MAX: u64 = 6;
/// So many batches in a row without company quicken the pace.
const LONE_STREAK_MAX: u32 = 4;
/// Batches kept in memory until every peer has them; beyond this the older ones are read from files.
const RECENT_BYTES_MAX: usize = 1_024 * 1_024;
/// What a batch takes in memory beside its bytes: its header, its columns, what allocations round up.
const RECENT_BATCH_BYTES: usize = 640;

/// A caller to be answered with its batch.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) ticket: Ticket,
    pub(crate) outcome: Outcome,
}

/// A number that is logged in a batch that waits for its sync.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StagedNumber {
    pub(crate) digest: PayloadDigest,
    pub(crate) seq: Seq,
    pub(crate) is_conditional: bool,
}

#[derive(Debug)]
struct InFlight {
    batch: Batch,
    records: RecordsBuilder,
    pending: Vec<Pending>,
    numbers: Vec<(SessionId, u64, bool)>,
    has_large_adds: bool,
}

/// The log of this epoch.
#[derive(Debug)]
pub(crate) struct Writer {
    cluster: ClusterId,
    log: LogId,
    open: RecordsBuilder,
    pending: Vec<Pending>,
    numbers: Vec<(SessionId, u64, bool)>,
    next: Seq,
    previous: Digest,
    ops_total: u64,
    durable: Seq,
    in_flight: VecDeque<InFlight>,
    /// Through which batch callers were answered before the sync.
    answered: Seq,
    /// The beat on which batches are closed, learned from how many callers the last ones gathered; in milliseconds.
    pace_ms: u64,
    closed_at_ms: u64,
    /// Whether a caller of the open batch came while another one waited.
    has_company: bool,
    /// Batches in a row of which none did.
    lone_streak: u32,
    staged_numbers: HashMap<(SessionId, u64), StagedNumber, foldhash::fast::FixedState>,
    staged_conditionals_count: usize,
    counter_deletes_count: usize,
    has_large_adds: bool,
    recent: VecDeque<Batch>,
    recent_bytes: usize,
}

impl Writer {
    pub(crate) fn new(cluster: ClusterId, shard: ShardId, name: LogName) -> Self {
        Self {
            cluster,
            log: log_id(shard, name),
            open: RecordsBuilder::new(),
            pending: Vec::new(),
            numbers: Vec::new(),
            next: Seq(1),
            previous: Digest::ZERO,
            ops_total: 0,
            durable: Seq::ZERO,
            in_flight: VecDeque::new(),
            answered: Seq::ZERO,
            pace_ms: 0,
            closed_at_ms: 0,
            has_company: false,
            lone_streak: 0,
            staged_numbers: HashMap::default(),
            staged_conditionals_count: 0,
            counter_deletes_count: 0,
            has_large_adds: false,
            recent: VecDeque::new(),
            recent_bytes: 0,
        }
    }

    pub(crate) fn name(&self) -> LogName {
        (self.log.region, self.log.epoch)
    }

    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    pub(crate) fn durable(&self) -> Seq {
        self.durable
    }

    /// The seq that the open batch will have.
    pub(crate) fn next(&self) -> Seq {
        self.next
    }

    /// The end of all that was admitted so far, closed or not.
    pub(crate) fn admitted(&self) -> Seq {
        if self.open.is_empty() { self.staged() } else { self.next }
    }

    /// The highest seq a peer may come to hear of.
    pub(crate) fn staged(&self) -> Seq {
        Seq(self.next.0 - 1)
    }

    /// Bytes of the open batch and of those that wait for their sync.
    pub(crate) fn staged_bytes(&self) -> usize {
        let in_flight: usize = self.in_flight.iter().map(|waiting| waiting.batch.bytes().len()).sum();
        self.open.bytes_estimate() + in_flight
    }

    /// Whether more ops may be staged; if not, hold them back until a batch is durable.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.open.bytes_estimate() >= limits::BATCH_BYTES_TARGET
            || self.open.ops_count() >= limits::BATCH_OPS_TARGET
    }

    /// The records being staged.
    pub(crate) fn open(&mut self) -> &mut RecordsBuilder {
        &mut self.open
    }

    /// Staged records, newest first: what admission must see although it is not applied yet.
    pub(crate) fn staged_records(&self) -> impl Iterator<Item = &RecordsBuilder> {
        std::iter::once(&self.open).chain(self.in_flight.iter().rev().map(|waiting| &waiting.records))
    }

    /// The staged write to a cell that will win: a late copy of an older one may have been staged after it.
    pub(crate) fn last_write(&self, cell: CellName<'_>) -> Option<(Stamp, bool)> {
        self.staged_records().filter_map(|records| records.last_write(cell)).max_by_key(|&(stamp, _)| stamp)
    }

    /// Whether anything staged names a cell.
    pub(crate) fn names(&self, cell: CellName<'_>) -> bool {
        self.staged_records().any(|records| {
            // A batch that fixed no stamp wrote no register.
            (cell.kind == Kind::Counter || records.stamps().is_some()) && records.names(cell)
        })
    }

    pub(crate) fn sum(&self, cell: CellName<'_>, generation: Option<Stamp>) -> Option<i128> {
        self.staged_records().filter_map(|records| records.sum(cell, generation)).reduce(|a, b| a + b)
    }

    pub(crate) fn has_counter_deletes(&self) -> bool {
        self.counter_deletes_count > 0
    }

    /// Whether any staged add is so large that a counter may leave its range by those that are staged alone.
    pub(crate) fn has_large_adds(&self) -> bool {
        self.has_large_adds || self.in_flight.iter().any(|waiting| waiting.has_large_adds)
    }

    pub(crate) fn note_large_add(&mut self) {
        self.has_large_adds = true;
    }

    pub(crate) fn note_counter_delete(&mut self) {
        self.counter_deletes_count += 1;
    }

    /// A number that is staged.
    pub(crate) fn staged_number(&self, session: SessionId, number: u64) -> Option<StagedNumber> {
        self.staged_numbers.get(&(session, number)).copied()
    }

    /// Whether any staged number is conditional.
    pub(crate) fn has_staged_conditionals(&self) -> bool {
        self.staged_conditionals_count > 0
    }

    /// The open batch logs a number. One that was staged as conditional may be logged once more, by the authority.
    pub(crate) fn note_number(&mut self, op: &SessionOp, is_conditional: bool) {
        let staged = StagedNumber { digest: op.digest, seq: self.next, is_conditional };
        self.staged_conditionals_count += usize::from(is_conditional);
        self.numbers.push((op.session, op.number, is_conditional));
        self.staged_numbers.insert((op.session, op.number), staged);
    }

    /// Answers a caller with the batch that holds its ops, the open one or one that waits for its sync.
    pub(crate) fn answer_with(&mut self, seq: Seq, pending: Pending) {
        let waiting = self.in_flight.iter_mut().find(|waiting| waiting.batch.header().seq == seq);
        match waiting {
            Some(waiting) => waiting.pending.push(pending),
            None => {
                assert!(
                    seq == self.next,
                    "a staged op is in the open batch or in one that waits for its sync"
                );
                self.has_company |= !self.pending.is_empty() || self.unanswered_count() > 0;
                self.pending.push(pending);
            }
        }
    }

    /// When the open batch may be closed if nothing else happens; none if there is nothing to wait for but a sync.
    pub(crate) fn next_close_ms(&self) -> Option<u64> {
        let waits_for_pace = !self.open.is_empty() && self.unanswered_count() == 0;
        // All shards of a process keep the same beat, so that one sync and one wake-up serve the batches of many.
        let beat = |pace_ms: u64| (self.closed_at_ms / pace_ms + 1) * pace_ms;
        waits_for_pace.then(|| if self.pace_ms == 0 { self.closed_at_ms } else { beat(self.pace_ms) })
    }

    /// Callers that came while another one waited: more would come if the batch waited a little longer. A lone one, who
    /// comes back only once it was answered, waits in vain.
    fn learn_pace(&mut self) {
        if std::mem::take(&mut self.has_company) {
            self.pace_ms = (self.pace_ms * 2).clamp(1, PACE_MS_MAX);
            self.lone_streak = 0;
        } else {
            self.lone_streak += 1;
            if self.lone_streak >= LONE_STREAK_MAX {
                self.pace_ms /= 2;
                self.lone_streak = 0;
            }
        }
    }

    fn unanswered_count(&self) -> usize {
        self.in_flight.iter().rev().take_while(|waiting| waiting.batch.header().seq > self.answered).count()
    }

    fn may_close(&self, now_ms: u64) -> bool {
        let is_busy = self.unanswered_count() >= UNANSWERED_MAX || self.in_flight.len() >= IN_FLIGHT_MAX;
        if self.open.is_empty() || is_busy {
            return false;
        }
        let is_due = self.next_close_ms().is_some_and(|due_ms| now_ms >= due_ms);
        is_due || self.is_full() || self.open.bytes_estimate() >= OVERLAP_BYTES
    }

    /// Closes the open batch if nothing is being synced and the pace allows it, or if enough has gathered.
    pub(crate) fn close(&mut self, clock: Time, now_ms: u64) -> Option<Batch> {
        if !self.may_close(now_ms) {
            return None;
        }
        self.learn_pace();
        self.closed_at_ms = now_ms;
        let records = std::mem::take(&mut self.open);
        let place = Place {
            cluster: self.cluster,
            log: self.log,
            seq: self.next,
            ops_before: self.ops_total,
            clock,
            durable_through: self.durable,
            previous: self.previous,
        };
        let batch = Batch::close(place, &records);
        self.next = self.next.next();
        self.previous = batch.header().digest;
        self.ops_total = batch.header().ops_total;
        self.in_flight.push_back(InFlight {
            batch: batch.clone(),
            records,
            pending: std::mem::take(&mut self.pending),
            numbers: std::mem::take(&mut self.numbers),
            has_large_adds: std::mem::take(&mut self.has_large_adds),
        });
        Some(batch)
    }

    /// Takes the answers of all batches staged through `through`.
    pub(crate) fn take_staged(&mut self, through: Seq) -> Vec<Pending> {
        self.answered = through.max(self.answered);
        let staged = self.in_flight.iter_mut().take_while(|waiting| waiting.batch.header().seq <= through);
        staged.flat_map(|waiting| std::mem::take(&mut waiting.pending)).collect()
    }

    /// The next batch that is durable through `through`, with its callers; each is given once.
    pub(crate) fn take_durable(&mut self, through: Seq) -> Option<(Batch, Vec<Pending>)> {
        let seq = self.in_flight.front()?.batch.header().seq;
        if seq > through {
            return None;
        }
        let InFlight { batch, records, pending, numbers, .. } = self.in_flight.pop_front()?;
        self.durable = seq;
        for (session, number, is_conditional) in numbers {
            self.staged_conditionals_count -= usize::from(is_conditional);
            let number = (session, number);
            if self.staged_numbers.get(&number).is_some_and(|staged| staged.seq <= seq) {
                self.staged_numbers.remove(&number);
            }
        }
        self.counter_deletes_count -= records.counter_deletes_count();
        self.recent_bytes += recent_bytes(&batch);
        self.recent.push_back(batch.clone());
        while self.recent_bytes > RECENT_BYTES_MAX && self.recent.len() > 1 {
            self.forget_oldest();
        }
        Some((batch, pending))
    }

    /// Every peer has applied all through `through`: whoever wants it again gets it from files.
    pub(crate) fn acked(&mut self, through: Seq) {
        while self.recent.front().is_some_and(|oldest| oldest.header().seq <= through) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.recent.pop_front() {
            self.recent_bytes -= recent_bytes(&oldest);
        }
    }

    /// Takes every caller that waits, when nothing more can become durable.
    pub(crate) fn take_all_pending(&mut self) -> Vec<Pending> {
        let mut all: Vec<Pending> =
            self.in_flight.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.pending)).collect();
        all.append(&mut self.pending);
        all
    }

    /// A batch kept in memory.
    pub(crate) fn recent(&self, seq: Seq) -> Option<&Batch> {
        let first = self.recent.front()?.header().seq;
        let at = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        self.recent.get(at)
    }

    /// Whether nothing is staged or waits for its sync.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.in_flight.is_empty()
    }
}

fn recent_bytes(batch: &Batch) -> usize {
    batch.bytes().len() + RECENT_BATCH_BYTES
}
