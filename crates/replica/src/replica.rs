//! One shard in one region: a state machine. Inputs go in, effects come out; it waits for nothing and touches nothing.
//!
//! Order of steps, never another: staged → durable → applied → offered → woken (design.md §3.1).

use std::collections::{BTreeSet, VecDeque};

use tombolo_causality::{HybridClock, RegionId, TenantId, Time};
use tombolo_codec::{Batch, Checkpoint};
use tombolo_mutants::{Mutant, is_planted};

use crate::barrier::{Reader, Waiters};
use crate::effect::{Answer, Effect, Notice};
use crate::exchange::held::Holding;
use crate::exchange::intake::{Intake, Receipt};
use crate::exchange::peers::Peers;
use crate::exchange::progress::Progress;
use crate::heal::cut::Cuts;
use crate::heal::fetch::Fetches;
use crate::input::{Input, Now, Options, Ticket};
use crate::life::joining::JoinMark;
use crate::life::stability::Stability;
use crate::state::State;
use crate::verify::Verifying;
use crate::writing::writer::Writer;

/// What keeps this region's own log from being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Storage {
    Good,
    Full,
    Failed(String),
}

/// The state machine of one shard.
///
/// Feed it with [`Replica::handle`], let it close a batch with [`Replica::flush`] when no more inputs wait, and run
/// what [`Replica::poll_effect`] gives, in order, after each.
pub struct Replica {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) writer: Writer,
    pub(crate) intake: Intake,
    pub(crate) peers: Peers,
    pub(crate) waiters: Waiters,
    pub(crate) clock: HybridClock,
    pub(crate) progress: Progress,
    pub(crate) storage: Storage,
    pub(crate) is_clock_ahead: bool,
    pub(crate) is_whole: bool,
    pub(crate) is_started: bool,
    pub(crate) join_mark: Option<JoinMark>,
    pub(crate) is_sealing: bool,
    /// Removed regions whose logs this process has staged seals of.
    pub(crate) inheriting: BTreeSet<RegionId>,
    /// Whether conditionals wait for room to be absorbed.
    pub(crate) is_absorbing: bool,
    pub(crate) started_ms: u64,
    pub(crate) started_wall: Time,
    pub(crate) stability: Stability,
    pub(crate) cuts: Cuts,
    pub(crate) fetches: Fetches,
    pub(crate) holding: Holding,
    pub(crate) verifying: Option<Box<Verifying>>,
    pub(crate) effects: VecDeque<Effect>,
}

impl Replica {
    /// A shard that starts from a checkpoint, or from nothing. Give it what its logs hold with [`Replica::replay`].
    #[must_use]
    pub fn open(options: Options, checkpoint: Option<&Checkpoint>) -> Self {
        let state = checkpoint.map(State::restore).unwrap_or_default();
        let own = (options.region, options.epoch);
        let clock_floor = checkpoint.map_or(Time::ZERO, |checkpoint| checkpoint.clock);
        let clock_floor = clock_floor.max(state.logs.clock_of(options.region));
        Self {
            writer: Writer::new(options.cluster, options.shard, own),
            intake: Intake::new(options.peer_limits.window_bytes),
            peers: Peers::new(&options.roster, options.region),
            waiters: Waiters::default(),
            clock: HybridClock::restored(options.drift_ms_max, clock_floor),
            progress: Progress::default(),
            storage: Storage::Good,
            is_clock_ahead: false,
            is_whole: false,
            is_started: false,
            join_mark: None,
            is_sealing: false,
            inheriting: BTreeSet::new(),
            is_absorbing: false,
            started_ms: 0,
            started_wall: Time::ZERO,
            stability: Stability::default(),
            cuts: Cuts::default(),
            fetches: Fetches::default(),
            holding: Holding::default(),
            verifying: None,
            effects: VecDeque::new(),
            state,
            options,
        }
    }

    /// Takes a batch found durable in a log on disk. Logs in any order, each log in its own.
    ///
    /// Errors: a text if the batch contradicts the state (a log that forks, or has a gap); the log is halted.
    pub fn replay(&mut self, batch: &Batch) -> Result<(), String> {
        let header = batch.header();
        let name = (header.log.region, header.log.epoch);
        if header.seq <= self.state.logs.held(name) {
            return Ok(());
        }
        match self.intake.receive(batch, &self.state.logs) {
            Receipt::Next => {}
            Receipt::Duplicate => return Ok(()),
            Receipt::Gap { expected } => {
                return Err(format!("{name:?}: batch {} found where {expected} is missing", header.seq));
            }
            Receipt::Fork(why) => return Err(why),
            Receipt::Refused => return Err(format!("{name:?} was taken over or is halted")),
        }
        if name.0 == self.options.region && !is_planted(Mutant::StampBoundNotPersisted) {
            let last = self.clock.last().max(header.clock);
            self.clock = HybridClock::restored(self.options.drift_ms_max, last);
        }
        self.intake.set_durable(name, header.seq);
        self.apply_ready(name, Now::default());
        // Nobody is connected yet: what replaying would tell peers or callers, hellos and reads will.
        self.effects.retain(|effect| matches!(effect, Effect::Notice(_)));
        Ok(())
    }

    /// Begins the life of this epoch, after replay. A region without peers is whole at once.
    pub fn start(&mut self, now: Now) {
        self.is_started = true;
        self.started_ms = now.monotonic_ms;
        self.started_wall = now.wall;
        self.check_whole(now);
        self.absorb_all();
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether more may be asked; if not, hold commands back until batches are durable. Where the disk fails or is full,
    /// commands are always taken: writes are refused, reads go on (W6).
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.storage != Storage::Good || self.writer.has_room()
    }

    /// When to call [`Replica::flush`] again although nothing happens: the open batch waits for its pace.
    ///
    /// Units: milliseconds of [`Now::monotonic_ms`].
    #[must_use]
    pub fn next_flush_ms(&self) -> Option<u64> {
        self.writer.next_close_ms().filter(|_| self.storage == Storage::Good)
    }

    /// Closes the open batch, if nothing is being synced and its pace allows it, or if enough has gathered.
    pub fn flush(&mut self, now: Now) {
        if self.storage != Storage::Good {
            return;
        }
        let clock = if self.writer.is_idle() { self.clock.last() } else { self.clock.tick(now.wall) };
        if let Some(batch) = self.writer.close(clock, now.monotonic_ms) {
            if is_planted(Mutant::OfferBeforeDurable) {
                let links =
                    self.peers.peers.iter().filter_map(|(&peer, it)| it.link.map(|link| (peer, link)));
                let ship = |(peer, link)| Effect::Ship { peer, link, batch: batch.clone() };
                self.effects.extend(links.map(ship));
            }
            self.effects.push_back(Effect::Append(batch));
        }
    }

    /// Handles one input; effects are added to those that wait.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Check { ticket, part } => {
                let result = self.check_only(&part, now);
                let checked = result.map_err(|reject| self.as_known(&part, reject)).map(|()| part);
                self.answer(ticket, Answer::Checked(checked));
            }
            Input::Write { ticket, part } => self.write(ticket, &part, now),
            Input::Read { ticket, tenant, keys, after } => {
                let reader = Reader { tenant, keys, after };
                self.read(ticket, reader, now);
            }
            Input::Await { ticket, positions } => self.wait(ticket, positions),
            Input::Cancel { ticket } => {
                self.waiters.cancel(ticket);
                self.cancel_verifying(ticket);
            }
            Input::Staged { log, through } => self.staged(log, through),
            Input::Durable { log, through } => self.durable((log.region, log.epoch), through, now),
            Input::StorageFailed { log, text } => self.storage_failed((log.region, log.epoch), &text),
            Input::StorageFull { is_full } => self.storage_full(is_full, now),
            Input::PeerUp { peer, epoch, link } => self.peer_up(peer, epoch, link),
            Input::PeerAnswer { peer, link, received, applied } => {
                self.peer_answer(peer, link, received, applied, now);
            }
            Input::PeerDown { peer, link } => self.peer_down(peer, link),
            Input::Remote { from, link, batch } => self.remote(from, link, batch),
            Input::Subscribe { from, link, log, seq } => {
                self.subscribe(from, link, (log.region, log.epoch), seq)
            }
            Input::Unsubscribe { from, link, log } => {
                if let Some(peer) = self.peers.on(from, link) {
                    peer.sending.remove(&(log.region, log.epoch));
                }
            }
            Input::Acked { from, link, positions } => self.acked(from, link, &positions, now),
            Input::Loaded { peer, link, log, batches } => {
                self.loaded(peer, link, (log.region, log.epoch), &batches);
            }
            Input::WholeAsked { from, link, roster, epochs } => self.whole_asked(from, link, roster, epochs),
            Input::WholeAnswered { from, link, roster, epochs, received } => {
                if roster == self.options.roster.digest() {
                    self.whole_answered(from, link, &epochs, received, now);
                }
            }
            Input::StableAsked { from, link, roster, log, through } => {
                self.stable_asked(from, link, roster, (log, through));
            }
            Input::NotRetained { from, link, log, seq } => {
                self.not_retained(from, link, (log.region, log.epoch), seq, now);
            }
            Input::Cut { from, link, message } => self.cut_said((from, link), *message, now),
            Input::Installed { difference } => self.installed(&difference, now),
            Input::InstallFailed { text } => self.install_failed(&text, now),
            Input::HeldThere { from, link, held } => self.held_there(from, link, held),
            Input::Verify { ticket, peer, mend } => self.verify(ticket, peer, mend),
            Input::Proceed => self.proceed(),
            Input::Mended { mending } => self.mended(&mending),
            Input::MendFailed { text } => self.mend_failed(&text),
            Input::Tick => {
                self.look_at_queues();
                self.note_trend(now);
                self.end_idle_cuts(now);
                self.look_after_fetch(now);
                self.look_after_verifying(now);
                self.tick(now);
            }
            Input::StableAnswered { from, link, roster, log, through, own } => {
                if roster == self.options.roster.digest() {
                    self.stable_answered(from, link, (log, through), own);
                }
            }
            Input::Members(roster) => self.set_roster(roster, now),
            Input::PauseApply { peer, is_paused } => self.pause(peer, is_paused, now),
            Input::ClockAhead { is_ahead } => self.is_clock_ahead = is_ahead,
        }
    }

    /// State, vector, sessions and clock in one piece, at exactly the applied vector (W9).
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.state.dump(self.clock.last())
    }

    /// Damages a counter in memory, for tests of what finds that; whether there is one of this key.
    #[doc(hidden)]
    pub fn damage_counter(&mut self, tenant: TenantId, key: &[u8], by: u64) -> bool {
        self.state.damage_counter(tenant, key, by)
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.effects.push_back(Effect::Answer { ticket, answer });
    }

    pub(crate) fn notice(&mut self, code: &'static str, text: String) {
        self.effects.push_back(Effect::Notice(Notice { code, text }));
    }
}
