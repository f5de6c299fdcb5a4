//! Fetching what histories no longer give: the entries in which this shard differs from a peer's cut, joined in one step
//! (design.md §3.6).
//!
//! A peer that does not keep what is wanted of a log says so. If nobody connected keeps it, one of them is asked for a
//! cut. The leaves' digests say where the two differ, this side names the entries it has there, and the others come.
//! Nothing of it is visible, or counts, before the shell has made a checkpoint of the outcome durable: only then are
//! they joined with what is here by then. Meanwhile everything else goes on; an end of the connection just ends it, and
//! it begins anew. Start with [`Replica::fetch_if_stuck`].

use std::collections::BTreeMap;

use tombolo_causality::{HybridClock, RegionId, Seq};
use tombolo_codec::{
    Checkpoint, Entries, LEAVES_COUNT, LeafAsk, LeafSums, PeerMessage, Reject, RejectCode, Section,
};

use crate::effect::Effect;
use crate::heal::merge::{Absent, Difference};
use crate::heal::prints::{NameRef, View, differing, hash_entries};
use crate::heal::questions::{Came, Questions, Taken};
use crate::input::{Link, Now};
use crate::replica::{Replica, Storage};
use crate::state::State;
use crate::state::cells::CellKey;
use crate::state::logs::{LogName, log_id};
use crate::state::table::{CutId, narrowed, print_of};

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
        logs: BTreeMap<LogName, Seq>,
        entries_count: u64,
    },
}

#[derive(Debug)]
struct Fetching {
    questions: Questions,
    /// This state as it was compared, and its digests as they are under the seals of both.
    own: CutId,
    view: View,
    /// How many bytes stand for a digest.
    digest_bytes: u8,
    /// Entries here of the leaves that were asked for, until all of the leaf has come.
    named: BTreeMap<(Section, u16), Vec<NamedEntry>>,
    /// What of each section's digest is not explained yet; none where nothing is compared.
    unexplained: Option<BTreeMap<Section, u128>>,
    difference: Difference,
}

/// An entry here that was named in a question.
#[derive(Debug)]
struct NamedEntry {
    print: u64,
    digest: u128,
    /// Of a register its name: it may have to go.
    register: Option<CellKey>,
}

/// What is fetched, and when it may be tried again.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    present: Option<Fetch>,
    not_before_ms: u64,
    /// Parts of digests did not find all that differs: it is looked for with all of them.
    is_in_full: bool,
}

impl Fetches {
    /// With whom a cut here is being compared, on which connection.
    pub(crate) fn compared_with(&self) -> Option<(RegionId, Link)> {
        let fetch = self.present.as_ref().filter(|fetch| matches!(fetch.step, Step::Fetching(_)))?;
        Some((fetch.source, fetch.link))
    }
}

impl Replica {
    /// What is being fetched, if anything is.
    #[must_use]
    pub fn fetching(&self) -> Option<FetchReport> {
        let fetch = self.fetches.present.as_ref()?;
        let (entries_count, leaves_count, is_installing) = match &fetch.step {
            Step::Asked => (0, 0, false),
            Step::Fetching(it) => (it.questions.entries_count, it.questions.leaves_count(), false),
            Step::Installing { entries_count, .. } => (*entries_count, 0, true),
        };
        Some(FetchReport { from: fetch.source, entries_count, leaves_count, is_installing })
    }

    /// Whether a log goes on behind what is being installed: what comes of it now would not fit.
    pub(crate) fn is_jumping(&self, name: LogName) -> bool {
        matches!(&self.fetches.present, Some(Fetch { step: Step::Installing { logs, .. }, .. })
            if logs.contains_key(&name))
    }

    /// Logs that go on behind what is being installed, or that end with it, and where: from here on it may come to be.
    pub(crate) fn installing(&self) -> impl Iterator<Item = (LogName, Seq)> + '_ {
        let logs = self.fetches.present.as_ref().and_then(|fetch| match &fetch.step {
            Step::Installing { logs, .. } => Some(logs),
            Step::Asked | Step::Fetching(_) => None,
        });
        logs.into_iter().flatten().map(|(&name, &end)| (name, end))
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
        let text = "this shard takes a difference from a peer";
        self.end_verifying(Reject::new(RejectCode::Busy, text).retry_after_ms(500));
        let sealed = self.state.logs.sealed_logs();
        self.fetches.present = Some(Fetch { source, link, heard_ms: now.monotonic_ms, step: Step::Asked });
        let digest_bytes = self.digest_bytes();
        self.send(source, PeerMessage::CutAsk { shard: self.options.shard, sealed, digest_bytes });
    }

    const fn digest_bytes(&self) -> u8 {
        if self.fetches.is_in_full { 8 } else { self.options.peer_limits.digest_bytes }
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
        self.drop_fetch();
        self.fetches.not_before_ms = now.monotonic_ms + RETRY_AFTER_MS;
    }

    fn drop_fetch(&mut self) {
        if let Some(Fetch { step: Step::Fetching(fetching), .. }) = self.fetches.present.take() {
            self.end_cut(fetching.own);
        }
    }

    /// The connection to a peer ended.
    pub(crate) fn end_fetch_from(&mut self, peer: RegionId) {
        let is_from = |fetch: &Fetch| fetch.source == peer && !matches!(fetch.step, Step::Installing { .. });
        if self.fetches.present.as_ref().is_some_and(is_from) {
            self.drop_fetch();
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
        let mine = self.state.trees().map(|(_, _, len)| len as u64);
        let largest = |theirs: &Vec<LeafSums>| {
            mine.into_iter().chain(theirs.iter().map(|of| of.entries_count)).max().unwrap_or_default()
        };
        let sizes = sums.as_ref().map(largest);
        let view = self.state.view_under(&head);
        let mut fetching = Fetching {
            questions: Questions::of(cut, sizes),
            own: self.open_cut(),
            view,
            digest_bytes: self.digest_bytes(),
            named: BTreeMap::new(),
            unexplained: None,
            difference: Difference {
                state: head,
                absent: Absent::default(),
                compared: self.state.logs.all_held(),
            },
        };
        match sums {
            Some(sums) => self.compare(&sums, &mut fetching),
            None => {
                fetching.difference.absent = Absent::Unsent;
                for section in Section::ALL {
                    for leaf in 0..LEAVES_COUNT {
                        fetching.questions.add(section, LeafAsk { leaf: leaf as u16, known: Vec::new() });
                    }
                }
            }
        }
        if let Some(fetch) = &mut self.fetches.present {
            fetch.step = Step::Fetching(Box::new(fetching));
        }
        self.ask_entries(now);
    }

    /// Notes the leaves that differ, and by how much the sections do.
    fn compare(&self, theirs: &[LeafSums], fetching: &mut Fetching) {
        let mut unexplained = BTreeMap::new();
        let all = self.state.sums_in(&fetching.view);
        assert_eq!(all.len(), theirs.len(), "a cut of other than all sections does not decode");
        for (mine, theirs) in all.iter().zip(theirs) {
            assert_eq!(mine.section, theirs.section, "the sections of a cut decode in their order");
            unexplained.insert(mine.section, theirs.total.wrapping_sub(mine.total));
            for leaf in differing(mine, theirs, fetching.digest_bytes) {
                fetching.questions.add(mine.section, LeafAsk { leaf, known: Vec::new() });
            }
        }
        fetching.unexplained = Some(unexplained);
    }

    /// Asks for what is due, as far as questions may be under way; once all has come, has it installed.
    fn ask_entries(&mut self, now: Now) {
        let shard = self.options.shard;
        let Some(Fetch { source, step, .. }) = &mut self.fetches.present else { return };
        let (source, Step::Fetching(fetching)) = (*source, step) else { return };
        let Fetching { questions, own, view, digest_bytes, named, unexplained, .. } = &mut **fetching;
        let state = &self.state;
        let messages = questions.ask(shard, |section, leaves| {
            if unexplained.is_some() {
                name_entries(state, (view, *own, *digest_bytes), section, leaves, named);
            }
        });
        let (is_complete, cut) = (questions.is_complete(), questions.cut);
        messages.into_iter().for_each(|message| self.send(source, message));
        if is_complete {
            self.send(source, PeerMessage::CutDone { shard, cut });
            self.fetched(now);
        }
    }

    /// All has come that was asked for.
    fn fetched(&mut self, now: Now) {
        let Some(Fetch { source, step: Step::Fetching(fetching), .. }) = &self.fetches.present else {
            return;
        };
        let source = *source;
        let all = fetching.unexplained.iter().flatten();
        let unexplained: Vec<Section> =
            all.filter(|(_, of)| **of != 0).map(|(section, _)| *section).collect();
        if unexplained.is_empty() {
            return self.install();
        }
        if fetching.digest_bytes < 8 {
            // Something that differs has parts of digests that do not.
            self.drop_fetch();
            self.fetches.is_in_full = true;
            return self.fetch_if_stuck(now);
        }
        // Digests in full have found all that the entries say: no other attempt finds more, and the log stays stuck
        // without what did come.
        let text = format!(
            "a difference from region {source} does not explain the digests of {unexplained:?}: here or there a digest \
             that is kept contradicts its entries; what came is installed, `tombolo verify` says where it is"
        );
        self.notice("difference_unexplained", text);
        self.install();
    }

    /// Entries have come.
    pub(crate) fn entries_came(&mut self, (from, link): (RegionId, Link), came: Came, now: Now) {
        let Some(Step::Fetching(fetching)) = self.fetch_from(from, link, now) else { return };
        let Some(taken) = fetching.questions.take(came) else { return };
        let Taken { section, entries, unknown, complete } = taken;
        let mut explained = hash_entries(&entries);
        for (leaf, print) in unknown {
            let named = fetching.named.get(&(section, leaf)).into_iter().flatten();
            let Some(named) = named.into_iter().find(|named| named.print == print) else { continue };
            explained = explained.wrapping_sub(named.digest);
            if let (Some(name), Absent::These(absent)) = (&named.register, &mut fetching.difference.absent) {
                absent.insert((name.tenant, name.key.clone()));
            }
        }
        complete.iter().for_each(|&leaf| drop(fetching.named.remove(&(section, leaf))));
        let of_section = fetching.unexplained.as_mut().and_then(|all| all.get_mut(&section));
        if let Some(of_section) = of_section {
            *of_section = of_section.wrapping_sub(explained);
        }
        let Entries { cells, sessions, conditionals } = entries;
        let state = &mut fetching.difference.state;
        state.cells.extend(cells);
        state.sessions.extend(sessions);
        state.conditionals.extend(conditionals);
        self.ask_entries(now);
    }

    /// Hands the difference to the shell, which makes a checkpoint with it durable.
    fn install(&mut self) {
        let Some(fetch) = &mut self.fetches.present else { return };
        let installing = Step::Installing { logs: BTreeMap::new(), entries_count: 0 };
        let Step::Fetching(fetching) = std::mem::replace(&mut fetch.step, installing) else {
            unreachable!("only what was fetched is installed");
        };
        let Fetching { difference, questions, own, .. } = *fetching;
        self.end_cut(own);
        self.fetches.is_in_full = false;
        let Some(fetch) = &mut self.fetches.present else { return };
        let entries_count = questions.entries_count;
        let is_further = |name: &LogName, end: Seq| end > self.intake.received(*name, &self.state.logs);
        let ends = difference.state.logs.iter().map(|end| ((end.region, end.epoch), end.seq));
        let mut logs: BTreeMap<LogName, Seq> = ends.filter(|(name, end)| is_further(name, *end)).collect();
        let sealed = difference.state.sealed.iter().map(|it| ((it.seal.region, it.seal.epoch), it.seal.end));
        logs.extend(sealed.filter(|(name, _)| self.state.logs.sealed(*name).is_none()));
        fetch.step = Step::Installing { logs: logs.clone(), entries_count };
        for name in logs.into_keys() {
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
            // Whoever takes this log from here learns that what has just come does not come as batches.
            let peers: Vec<RegionId> = self.peers.peers.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.serve(peer, name));
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

/// Names the entries here of leaves that are to be asked for, but for those that were asked for before.
fn name_entries(
    state: &State,
    (view, own, digest_bytes): (&View, CutId, u8),
    section: Section,
    asks: &mut [LeafAsk],
    named: &mut BTreeMap<(Section, u16), Vec<NamedEntry>>,
) {
    let is_new = |ask: &&mut LeafAsk| !named.contains_key(&(section, ask.leaf));
    let mut asks: Vec<&mut LeafAsk> = asks.iter_mut().filter(is_new).collect();
    let leaves: Vec<u16> = asks.iter().map(|ask| ask.leaf).collect();
    leaves.iter().for_each(|&leaf| drop(named.insert((section, leaf), Vec::new())));
    state.each_digest((view, Some(own)), section, &leaves, |leaf, digest, name| {
        let print = narrowed(print_of(digest), digest_bytes);
        let register = if let NameRef::Register(name) = name { Some(name.clone()) } else { None };
        if let Ok(at) = leaves.binary_search(&leaf) {
            asks[at].known.push(print);
            named.entry((section, leaf)).or_default().push(NamedEntry { print, digest, register });
        }
    });
}
