//! Fetching what histories no longer give: the entries in which this shard differs from a peer's cut, joined in one step
//! (design.md §3.6).
//!
//! A peer that does not keep what is wanted of a log says so. If nobody connected keeps it, one of them is asked for a
//! cut. The leaves' digests say where the two differ, this side names the entries it has there, and the others come.
//! Nothing of it is visible, or counts, before the shell has made a checkpoint of the outcome durable: only then are
//! they joined with what is here by then. Meanwhile everything else goes on; an end of the connection just ends it, and
//! it begins anew. Start with [`Replica::fetch_if_stuck`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombolo_causality::{HybridClock, RegionId, Seq};
use tombolo_codec::limits::ENTRIES_LEAVES_MAX;
use tombolo_codec::{Checkpoint, Entries, LEAVES_COUNT, LeafAsk, LeafSums, PeerMessage, Section};

use crate::cells::CellKey;
use crate::effect::Effect;
use crate::input::{Link, Now};
use crate::logs::{LogName, log_id};
use crate::merge::{Absent, Difference};
use crate::replica::{Replica, Storage};

/// Questions about entries that may be under way: a share of the bandwidth, not all of it.
const QUESTIONS_MAX: usize = 4;
/// About how many entries a question may bring.
const QUESTION_ENTRIES: u64 = 1_024;
/// Most digests that one question names.
const QUESTION_PRINTS_MAX: usize = 8_192;
/// A peer that says nothing for so long is given up.
const SILENCE_MS_MAX: u64 = 30_000;
/// Pause after a peer had no cut to give, or a difference could not be installed.
const RETRY_AFTER_MS: u64 = 1_000;

/// Where this shard is with what it fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchReport {
    /// From whom.
    pub from: RegionId,
    /// Entries that have come.
    pub entries_count: u64,
    /// Leaves still to come.
    pub leaves_count: usize,
    /// Whether all has come and is being made durable.
    pub is_installing: bool,
}

/// What is being fetched.
#[derive(Debug)]
pub(crate) struct Fetch {
    source: RegionId,
    link: Link,
    heard_ms: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// A cut was asked for.
    Asked,
    Fetching(Box<Fetching>),
    /// The shell makes it durable. Of these logs no more is taken in: they go on behind what is being installed.
    Installing {
        logs: BTreeSet<LogName>,
        entries_count: u64,
    },
}

#[derive(Debug)]
struct Fetching {
    cut: u64,
    /// Leaves to be asked for.
    due: VecDeque<(Section, LeafAsk)>,
    /// Questions under way; they are answered in order.
    asked: VecDeque<(Section, Vec<LeafAsk>)>,
    leaves_per_question: usize,
    /// Registers here that the peer may not know, by digest.
    registers: BTreeMap<u64, CellKey>,
    difference: Difference,
    entries_count: u64,
}

/// What waits before another attempt.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    present: Option<Fetch>,
    not_before_ms: u64,
}

impl Replica {
    /// What is being fetched, if anything is.
    #[must_use]
    pub fn fetching(&self) -> Option<FetchReport> {
        let fetch = self.fetches.present.as_ref()?;
        let (entries_count, leaves_count, is_installing) = match &fetch.step {
            Step::Asked => (0, 0, false),
            Step::Fetching(it) => {
                let asked_count: usize = it.asked.iter().map(|(_, leaves)| leaves.len()).sum();
                (it.entries_count, it.due.len() + asked_count, false)
            }
            Step::Installing { entries_count, .. } => (*entries_count, 0, true),
        };
        Some(FetchReport { from: fetch.source, entries_count, leaves_count, is_installing })
    }

    /// Whether a log goes on behind what is being installed: what comes of it now would not fit.
    pub(crate) fn is_jumping(&self, name: LogName) -> bool {
        matches!(&self.fetches.present, Some(Fetch { step: Step::Installing { logs, .. }, .. })
            if logs.contains(&name))
    }

    /// A peer does not keep what was asked of a log.
    pub(crate) fn not_retained(&mut self, from: RegionId, link: Link, name: LogName, seq: Seq, now: Now) {
        if self.peers.on(from, link).is_none() {
            return;
        }
        self.peers.gone.insert((from, name), seq);
        if self.peers.sources.get(&name) == Some(&from) {
            self.peers.sources.remove(&name);
            self.peers.asked.remove(&name);
        }
        self.replan();
        self.fetch_if_stuck(now);
    }

    /// Asks for a cut, if there is a log here that nobody connected keeps from where it ends here.
    pub(crate) fn fetch_if_stuck(&mut self, now: Now) {
        if self.fetches.present.is_some()
            || !self.is_started
            || self.storage != Storage::Good
            || now.monotonic_ms < self.fetches.not_before_ms
        {
            return;
        }
        let Some((_, source)) = self.stuck().into_iter().next() else { return };
        let Some(link) = self.peers.peers.get(&source).and_then(|peer| peer.link) else { return };
        let sealed = self.state.logs.sealed_logs();
        self.fetches.present = Some(Fetch { source, link, heard_ms: now.monotonic_ms, step: Step::Asked });
        self.send(source, PeerMessage::CutAsk { shard: self.options.shard, sealed });
    }

    /// Logs whose next batch somebody connected has applied and nobody connected keeps; and who has applied it.
    pub(crate) fn stuck(&self) -> Vec<(LogName, RegionId)> {
        let is_stuck = |&(&(region, name), &from): &(&(RegionId, LogName), &Seq)| {
            let is_up = self.peers.peers.get(&region).is_some_and(|peer| peer.is_answered);
            is_up
                && self.state.logs.sealed(name).is_none()
                && !self.peers.sources.contains_key(&name)
                && self.intake.received(name, &self.state.logs).next() <= from
        };
        let stuck = self.peers.gone.iter().filter(is_stuck);
        stuck.map(|(&(region, name), _)| (name, region)).collect()
    }

    fn fetch_from(&mut self, from: RegionId, link: Link, now: Now) -> Option<&mut Step> {
        let fetch = self.fetches.present.as_mut().filter(|it| it.source == from && it.link == link)?;
        fetch.heard_ms = now.monotonic_ms;
        Some(&mut fetch.step)
    }

    pub(crate) fn cut_refused(&mut self, from: RegionId, link: Link, now: Now) {
        if matches!(self.fetch_from(from, link, now), Some(Step::Asked | Step::Fetching(_))) {
            self.give_up_fetch(now);
        }
    }

    /// Ends what is being fetched; what has come of it goes.
    fn give_up_fetch(&mut self, now: Now) {
        self.fetches.present = None;
        self.fetches.not_before_ms = now.monotonic_ms + RETRY_AFTER_MS;
    }

    /// The connection to a peer ended.
    pub(crate) fn end_fetch_from(&mut self, peer: RegionId) {
        let is_from = |fetch: &Fetch| fetch.source == peer && !matches!(fetch.step, Step::Installing { .. });
        if self.fetches.present.as_ref().is_some_and(is_from) {
            self.fetches.present = None;
        }
    }

    pub(crate) fn look_after_fetch(&mut self, now: Now) {
        let is_silent = |fetch: &Fetch| {
            !matches!(fetch.step, Step::Installing { .. })
                && fetch.heard_ms + SILENCE_MS_MAX < now.monotonic_ms
        };
        if self.fetches.present.as_ref().is_some_and(is_silent) {
            self.give_up_fetch(now);
        }
        self.fetch_if_stuck(now);
    }

    /// The peer has opened a cut: finds the leaves that differ.
    pub(crate) fn cut_opened(
        &mut self,
        (from, link): (RegionId, Link),
        cut: u64,
        head: Checkpoint,
        sums: Option<Vec<LeafSums>>,
        now: Now,
    ) {
        let Some(Step::Asked) = self.fetch_from(from, link, now) else {
            if self.peers.on(from, link).is_some() {
                self.send(from, PeerMessage::CutDone { shard: self.options.shard, cut });
            }
            return;
        };
        let mut fetching = Fetching {
            cut,
            due: VecDeque::new(),
            asked: VecDeque::new(),
            leaves_per_question: ENTRIES_LEAVES_MAX,
            registers: BTreeMap::new(),
            difference: Difference { state: head, absent: Absent::default() },
            entries_count: 0,
        };
        match sums {
            Some(sums) => self.compare(&sums, &mut fetching),
            None => {
                fetching.difference.absent = Absent::Unsent;
                fetching.leaves_per_question = ENTRIES_LEAVES_MAX / 4;
                for section in Section::ALL {
                    let ask = |leaf| (section, LeafAsk { leaf: leaf as u16, known: Vec::new() });
                    fetching.due.extend((0..LEAVES_COUNT).map(ask));
                }
            }
        }
        if let Some(fetch) = &mut self.fetches.present {
            fetch.step = Step::Fetching(Box::new(fetching));
        }
        self.ask_entries();
    }

    /// Notes the leaves that differ, with the digests of the entries that stand in them here.
    fn compare(&mut self, theirs: &[LeafSums], fetching: &mut Fetching) {
        let view = self.state.view_under(&fetching.difference.state);
        let mine = self.state.sums_in(&view);
        let mut entries_max = 0;
        for mine in &mine {
            let Some(theirs) = theirs.iter().find(|theirs| theirs.section == mine.section) else { continue };
            entries_max = entries_max.max(theirs.entries_count);
            let at = |sums: &[u64], leaf: usize| sums.get(leaf).copied().unwrap_or(0);
            let differ = |&leaf: &usize| at(&mine.sums, leaf) != at(&theirs.sums, leaf);
            let leaves: Vec<u16> = (0..LEAVES_COUNT).filter(differ).map(|leaf| leaf as u16).collect();
            let mut known: BTreeMap<u16, Vec<u64>> = leaves.iter().map(|&leaf| (leaf, Vec::new())).collect();
            self.state.each_print(&view, mine.section, &leaves, |leaf, print, register| {
                known.entry(leaf).or_default().push(print);
                if let Some(name) = register {
                    fetching.registers.insert(print, name.clone());
                }
            });
            let asks = known.into_iter().map(|(leaf, known)| (mine.section, LeafAsk { leaf, known }));
            fetching.due.extend(asks);
        }
        let per_leaf = entries_max.div_ceil(LEAVES_COUNT as u64).max(1);
        let leaves = usize::try_from(QUESTION_ENTRIES / per_leaf).unwrap_or(1);
        fetching.leaves_per_question = leaves.clamp(1, ENTRIES_LEAVES_MAX);
    }

    /// Asks for what is due, as far as questions may be under way; once all has come, has it installed.
    fn ask_entries(&mut self) {
        let shard = self.options.shard;
        let Some(Fetch { source, step, .. }) = &mut self.fetches.present else { return };
        let (source, Step::Fetching(fetching)) = (*source, step) else { return };
        let mut messages = Vec::new();
        while fetching.asked.len() < QUESTIONS_MAX && !fetching.due.is_empty() {
            let mut leaves: Vec<LeafAsk> = Vec::new();
            let section = fetching.due[0].0;
            let mut prints_count = 0;
            while let Some((_, next)) = fetching.due.front().filter(|(of, _)| *of == section) {
                let is_full = leaves.len() >= fetching.leaves_per_question
                    || (!leaves.is_empty() && prints_count + next.known.len() > QUESTION_PRINTS_MAX);
                if is_full {
                    break;
                }
                prints_count += next.known.len();
                let (_, ask) = fetching.due.pop_front().expect("it was seen just now");
                leaves.push(ask);
            }
            fetching.asked.push_back((section, leaves.clone()));
            messages.push(PeerMessage::EntriesAsk { shard, cut: fetching.cut, section, leaves });
        }
        let is_complete = fetching.asked.is_empty() && fetching.due.is_empty();
        let cut = fetching.cut;
        messages.into_iter().for_each(|message| self.send(source, message));
        if is_complete {
            self.send(source, PeerMessage::CutDone { shard, cut });
            self.install();
        }
    }

    /// Entries have come.
    pub(crate) fn entries_came(&mut self, (from, link): (RegionId, Link), came: Came, now: Now) {
        let Some(Step::Fetching(fetching)) = self.fetch_from(from, link, now) else { return };
        if fetching.cut != came.cut || fetching.asked.front().is_none_or(|(of, _)| *of != came.section) {
            return;
        }
        let Came { section, entries, unknown, rest, sent, .. } = came;
        let (_, asked) = fetching.asked.pop_front().expect("it was seen just now");
        // What did not fit is asked for again; of the first leaf of it a part has come.
        for mut ask in asked.into_iter().filter(|ask| rest.contains(&ask.leaf)).rev() {
            if rest.first() == Some(&ask.leaf) {
                ask.known.extend(&sent);
            }
            fetching.due.push_front((section, ask));
        }
        let Entries { cells, sessions, conditionals } = entries;
        fetching.entries_count += (cells.len() + sessions.len() + conditionals.len()) as u64;
        let state = &mut fetching.difference.state;
        state.cells.extend(cells);
        state.sessions.extend(sessions);
        state.conditionals.extend(conditionals);
        if section == Section::Registers
            && let Absent::These(absent) = &mut fetching.difference.absent
        {
            let names = unknown.iter().filter_map(|print| fetching.registers.get(print));
            absent.extend(names.map(|name| (name.tenant, name.key.clone())));
        }
        self.ask_entries();
    }

    /// Hands the difference to the shell, which makes a checkpoint with it durable.
    fn install(&mut self) {
        let Some(fetch) = &mut self.fetches.present else { return };
        let installing = Step::Installing { logs: BTreeSet::new(), entries_count: 0 };
        let Step::Fetching(fetching) = std::mem::replace(&mut fetch.step, installing) else {
            unreachable!("only what was fetched is installed");
        };
        let Fetching { difference, entries_count, .. } = *fetching;
        let is_further = |name: &LogName, end: Seq| end > self.intake.received(*name, &self.state.logs);
        let ends = difference.state.logs.iter().map(|end| ((end.region, end.epoch), end.seq));
        let mut logs: BTreeSet<LogName> =
            ends.filter(|(name, end)| is_further(name, *end)).map(|(name, _)| name).collect();
        let sealed = difference.state.sealed.iter().map(|it| (it.seal.region, it.seal.epoch));
        logs.extend(sealed.filter(|name| self.state.logs.sealed(*name).is_none()));
        fetch.step = Step::Installing { logs: logs.clone(), entries_count };
        for name in logs {
            if let Some(source) = self.peers.sources.remove(&name) {
                self.send(source, PeerMessage::Unsubscribe { log: log_id(self.options.shard, name) });
            }
        }
        self.effects.push_back(Effect::Install(Box::new(difference)));
    }

    /// The checkpoint with the difference is durable, and the files of the logs go on behind it.
    pub(crate) fn installed(&mut self, difference: &Difference, now: Now) {
        let before = self.state.logs.clone();
        let moved = match self.state.join(difference) {
            Ok(moved) => moved,
            Err(error) => unreachable!("the shell has joined it with this state before: {error}"),
        };
        self.fetches.present = None;
        let own = self.options.region;
        for end in &moved.ends {
            let name = (end.region, end.epoch);
            self.intake.jump(name, &self.state.logs);
            if name.0 != own
                && let Err(refusal) = self.clock.observe(end.clock, now.wall)
            {
                let text = format!("region {}: {refusal}; its writes are applied", name.0);
                self.notice("clock_ahead", text);
            }
        }
        for &name in &moved.sealed {
            self.intake.forget(name);
            self.peers.sources.remove(&name);
        }
        // What this region had lost of its own logs: its clock issued these readings (H1).
        let last = self.clock.last().max(self.state.logs.clock_of(own));
        self.clock = HybridClock::restored(self.options.drift_ms_max, last);
        for end in &moved.ends {
            let name = (end.region, end.epoch);
            self.applied(name, before.end(name), now);
        }
        for &name in &moved.sealed {
            self.wake_readers(name, before.held(name), self.state.logs.held(name), now);
        }
        self.wake_sealed();
        let waiting: Vec<LogName> = self.intake.ends().map(|(name, _)| name).collect();
        waiting.into_iter().for_each(|name| self.apply_ready(name, now));
        self.release_blocked(now);
        self.absorb_all();
        self.replan();
        self.check_whole(now);
        self.fetch_if_stuck(now);
    }

    /// The difference could not be joined or written; nothing of it is here.
    pub(crate) fn install_failed(&mut self, text: &str, now: Now) {
        self.give_up_fetch(now);
        self.notice("difference_failed", format!("a difference was fetched and not installed: {text}"));
        self.replan();
    }
}

/// An answer with entries.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) cut: u64,
    pub(crate) section: Section,
    pub(crate) entries: Entries,
    pub(crate) unknown: Vec<u64>,
    pub(crate) rest: Vec<u16>,
    pub(crate) sent: Vec<u64>,
}
