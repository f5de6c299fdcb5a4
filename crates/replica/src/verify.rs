//! Proving, while writes go on, that this shard and a peer's hold the same; or naming the entries that differ.
//!
//! A cut is opened here and kept: from then on it says of every entry whether it has changed since. Once the peer has
//! applied what the cut holds, it is asked for a cut of its own; once this shard has applied what *that* holds, the two
//! are compared. An entry that has not changed here since the first cut is not touched by any batch between the two, so
//! it must be the same there: if it is not, one of the two is damaged. Entries that did change are looked at in another
//! round; of those that change in every round it is only shown that one may have come of the other.
//!
//! What stands here is hashed anew for it, so that damage in memory shows too, which the digests kept at every write
//! cannot see. Nothing is stopped, and nothing is changed but by [`crate::Mending`]. Start with [`Replica::verify`].

pub(crate) mod comparing;
pub(crate) mod entry;
pub(crate) mod mend;

use std::collections::{BTreeMap, BTreeSet};

use tombolo_causality::{RegionId, Seq};
use tombolo_codec::checkpoint::SealedLog;
use tombolo_codec::{Checkpoint, LeafSums, PeerMessage, Reject, RejectCode, Section};

use crate::effect::{Answer, Effect};
use crate::heal::questions::{Came, Taken};
use crate::input::{Link, Now, Ticket};
use crate::replica::Replica;
use crate::state::State;
use crate::state::logs::LogName;
use crate::state::table::{CutId, PARTS_COUNT};
use crate::verify::comparing::Comparing;
use crate::verify::entry::{EntryName, EntryState};
use crate::verify::mend::{Fix, Mending};

/// Rounds after which entries that are still in motion are reported as such.
const ROUNDS_MAX: u32 = 6;
/// Damaged entries that one report names.
const DAMAGED_MAX: usize = 1_000;
/// Parts of the tables that are hashed before what waits is handled.
const PARTS_AT_ONCE: usize = 4;
/// Without a step forward for so long it ends.
const STILL_MS_MAX: u64 = 30_000;

/// An entry that is not the same in two regions, and that no write can have made so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Which.
    pub name: EntryName,
    /// What stands here; none: nothing.
    pub here: Option<String>,
    /// What stands there.
    pub there: Option<String>,
    /// Whether it contradicts the digest that was kept of it here: then it is this region's that is wrong.
    pub is_here: bool,
}

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// With whom this shard was compared.
    pub peer: RegionId,
    /// How many rounds it took.
    pub rounds_count: u32,
    /// Entries compared.
    pub entries_count: u64,
    /// Entries that changed in every round: they are consistent, not proven equal.
    pub in_motion_count: usize,
    /// Damaged entries, those included that are not named.
    pub damaged_count: usize,
    /// Damaged entries, by name.
    pub damaged: Vec<Damaged>,
    /// Entries that were mended.
    pub mended_count: usize,
    /// Whether digests kept here were wrong, though what stands here is not.
    pub are_digests_wrong: bool,
}

/// What is being verified.
#[derive(Debug)]
pub(crate) struct Verifying {
    ticket: Ticket,
    peer: RegionId,
    link: Link,
    /// What is to be mended, if it is damaged; none: nothing, not even digests.
    mend: Option<BTreeSet<EntryName>>,
    /// The cut here, what it holds of the logs, and the seals it knows.
    cut: CutId,
    floor: Vec<(LogName, Seq)>,
    sealed: Vec<SealedLog>,
    step: Step,
    /// Entries that were in motion in every round before this one; none before the first.
    moving: Option<BTreeSet<EntryName>>,
    damaged: BTreeMap<EntryName, (Damaged, Fix)>,
    unnamed_count: usize,
    report: VerifyReport,
    /// Steps forward; how many there were at which tick.
    steps_count: u64,
    looked: (u64, u64),
}

#[derive(Debug)]
enum Step {
    /// The peer has to apply what the cut here holds.
    Waiting,
    /// It was asked for a cut.
    Asked,
    /// This shard has to apply what the peer's cut holds.
    CatchingUp {
        cut: u64,
        head: Box<Checkpoint>,
        sums: Vec<LeafSums>,
    },
    Comparing(Box<Comparing>),
    /// The shell makes what was mended durable.
    Mending,
}

/// Whether a peer's cut holds all of these.
fn is_covered(head: &Checkpoint, floor: &[(LogName, Seq)]) -> bool {
    let ends = head.logs.iter().map(|end| ((end.region, end.epoch), end.seq));
    let sealed = head.sealed.iter().map(|it| ((it.seal.region, it.seal.epoch), it.seal.end));
    let held: BTreeMap<LogName, Seq> = ends.chain(sealed).collect();
    floor.iter().all(|(name, seq)| held.get(name).is_some_and(|end| end >= seq))
}

impl Replica {
    /// Compares this shard with a peer's; what of `mend` is damaged is replaced by what stands there, and digests that
    /// are wrong are made anew.
    ///
    /// Errors, as the answer: `busy` while a difference is fetched or another verification is under way; `not_yet` if the
    /// peer is not connected, or does not keep up.
    pub(crate) fn verify(&mut self, ticket: Ticket, peer: RegionId, mend: Option<BTreeSet<EntryName>>) {
        let busy = |text: &str| Err(Reject::new(RejectCode::Busy, text).retry_after_ms(500));
        if self.verifying.is_some() {
            return self.answer(ticket, Answer::Verified(busy("this shard is being verified already")));
        }
        if self.fetching().is_some() {
            return self.answer(ticket, Answer::Verified(busy("this shard takes a difference from a peer")));
        }
        let known = self.peers.peers.get(&peer).filter(|it| it.is_answered).and_then(|it| it.link);
        let Some(link) = known else {
            let reject = Reject::new(RejectCode::NotYet, format!("region {peer} is not connected"));
            return self.answer(ticket, Answer::Verified(Err(reject.retry_after_ms(1_000))));
        };
        let report = VerifyReport {
            peer,
            rounds_count: 0,
            entries_count: 0,
            in_motion_count: 0,
            damaged_count: 0,
            damaged: Vec::new(),
            mended_count: 0,
            are_digests_wrong: false,
        };
        let cut = self.open_cut();
        self.verifying = Some(Box::new(Verifying {
            ticket,
            peer,
            link,
            mend,
            cut,
            floor: Vec::new(),
            sealed: Vec::new(),
            step: Step::Waiting,
            moving: None,
            damaged: BTreeMap::new(),
            unnamed_count: 0,
            report,
            steps_count: 0,
            looked: (0, u64::MAX),
        }));
        self.begin_verify_round();
    }

    fn begin_verify_round(&mut self) {
        let Some(cut) = self.verifying.as_ref().map(|it| it.cut) else { return };
        self.end_cut(cut);
        let cut = self.open_cut();
        let floor = self.state.logs.vector().iter().collect();
        let sealed = self.state.logs.sealed_logs();
        if let Some(it) = &mut self.verifying {
            (it.cut, it.floor, it.sealed, it.step) = (cut, floor, sealed, Step::Waiting);
            it.report.rounds_count += 1;
            it.unnamed_count = 0;
            it.steps_count += 1;
        }
        self.go_on_verifying();
    }

    /// An ack came, or batches were applied: whoever waited for that goes on.
    pub(crate) fn go_on_verifying(&mut self) {
        let Some(it) = &self.verifying else { return };
        match &it.step {
            Step::Waiting => {
                let Some(peer) = self.peers.peers.get(&it.peer) else { return };
                let has = |&(name, seq): &(LogName, Seq)| {
                    peer.applied.get(name.0, name.1) >= seq || self.state.logs.sealed(name).is_some()
                };
                if it.floor.iter().all(has) {
                    self.ask_cut_to_verify();
                }
            }
            Step::CatchingUp { head, .. } => {
                let ends = head.logs.iter().map(|end| ((end.region, end.epoch), end.seq));
                let sealed = head.sealed.iter().map(|it| (it.seal.region, it.seal.epoch));
                let logs = &self.state.logs;
                let is_here = ends.into_iter().all(|(name, seq)| logs.holds(name, seq))
                    && sealed.into_iter().all(|name| logs.sealed(name).is_some());
                if is_here {
                    self.begin_comparing();
                }
            }
            Step::Asked | Step::Comparing(_) | Step::Mending => {}
        }
    }

    fn ask_cut_to_verify(&mut self) {
        let Some(it) = &mut self.verifying else { return };
        it.step = Step::Asked;
        it.steps_count += 1;
        let (peer, sealed) = (it.peer, it.sealed.clone());
        self.send(peer, PeerMessage::CutAsk { shard: self.options.shard, sealed, digest_bytes: 8 });
    }

    /// Whether a peer's cut is one that was asked for here.
    pub(crate) fn is_verifying_with(&self, peer: RegionId, link: Link) -> bool {
        self.verifying.as_ref().is_some_and(|it| it.peer == peer && it.link == link)
    }

    /// The peer has opened a cut.
    pub(crate) fn cut_to_verify(&mut self, cut: u64, head: Checkpoint, sums: Option<Vec<LeafSums>>) {
        let shard = self.options.shard;
        let Some(it) = &mut self.verifying else { return };
        let is_usable = matches!(it.step, Step::Asked) && is_covered(&head, &it.floor);
        let Some(sums) = sums.filter(|_| is_usable) else {
            // The next ack, or the next tick, has it asked again.
            if matches!(it.step, Step::Asked) {
                it.step = Step::Waiting;
            }
            let peer = it.peer;
            return self.send(peer, PeerMessage::CutDone { shard, cut });
        };
        it.step = Step::CatchingUp { cut, head: Box::new(head), sums };
        it.steps_count += 1;
        self.go_on_verifying();
    }

    /// The peer had no cut to give, or has closed it: what was compared of it is compared anew.
    pub(crate) fn cut_to_verify_refused(&mut self) {
        if let Some(it) = &mut self.verifying
            && !matches!(it.step, Step::Mending)
        {
            it.step = Step::Waiting;
        }
    }

    fn begin_comparing(&mut self) {
        let Some(it) = &mut self.verifying else { return };
        let Step::CatchingUp { cut, sums, .. } = std::mem::replace(&mut it.step, Step::Waiting) else {
            unreachable!("it was seen just now")
        };
        it.step = Step::Comparing(Box::new(Comparing::new(cut, sums)));
        it.steps_count += 1;
        self.effects.push_back(Effect::Proceed);
    }

    /// What waited was handled: hashes the next parts of what stands here, and asks for what differs.
    pub(crate) fn proceed(&mut self) {
        let Some(it) = &mut self.verifying else { return };
        let Step::Comparing(comparing) = &mut it.step else { return };
        let end = (comparing.next_part + PARTS_AT_ONCE).min(PARTS_COUNT);
        for part in comparing.next_part..end {
            comparing.part(&self.state, part);
        }
        comparing.next_part = end;
        it.steps_count += 1;
        if end < PARTS_COUNT {
            self.effects.push_back(Effect::Proceed);
        }
        self.ask_to_verify();
    }

    fn ask_to_verify(&mut self) {
        let shard = self.options.shard;
        let Some(it) = &mut self.verifying else { return };
        let Step::Comparing(comparing) = &mut it.step else { return };
        let messages = comparing.questions.ask(shard, |_, _| {});
        let is_complete = comparing.next_part == PARTS_COUNT && comparing.questions.is_complete();
        let peer = it.peer;
        messages.into_iter().for_each(|message| self.send(peer, message));
        if is_complete {
            self.end_round();
        }
    }

    /// Entries have come.
    pub(crate) fn entries_to_verify(&mut self, came: Came) {
        let Some(it) = &mut self.verifying else { return };
        let Step::Comparing(comparing) = &mut it.step else { return };
        let Some(Taken { section, entries, unknown, .. }) = comparing.questions.take(came) else { return };
        it.steps_count += 1;
        let mut theirs: Vec<(EntryName, Option<EntryState>)> =
            EntryState::all(entries).map(|state| (state.name(), Some(state))).collect();
        let lacking = unknown.iter().filter_map(|&(_, print)| comparing.names.get(&(section, print)));
        theirs.extend(lacking.map(|name| (name.clone(), None)));
        for (name, theirs) in theirs {
            it.judge(&self.state, name, theirs);
        }
        self.ask_to_verify();
    }

    fn end_round(&mut self) {
        let shard = self.options.shard;
        let Some(it) = &mut self.verifying else { return };
        let Step::Comparing(comparing) = std::mem::replace(&mut it.step, Step::Mending) else { return };
        let Comparing { questions, moving, wrong, entries_count, .. } = *comparing;
        it.report.entries_count = entries_count;
        let moving = match it.moving.take() {
            Some(before) => before.into_iter().filter(|name| moving.contains(name)).collect(),
            None => moving,
        };
        let is_moving = !moving.is_empty();
        it.moving = Some(moving);
        let is_explained = |(section, leaf): &(Section, u16)| {
            it.damaged.keys().any(|name| (name.section(), name.leaf()) == (*section, *leaf))
        };
        let are_digests_wrong = wrong.iter().any(|leaf| !is_explained(leaf));
        it.report.are_digests_wrong |= are_digests_wrong;
        if are_digests_wrong && it.mend.is_some() {
            self.state.recount();
            it.report.are_digests_wrong = false;
        }
        let is_wanted = |name: &EntryName| it.mend.as_ref().is_some_and(|mend| mend.contains(name));
        let fixes = it.damaged.iter().filter(|(name, _)| is_wanted(name));
        let fixes: BTreeMap<EntryName, Fix> =
            fixes.map(|(name, (_, fix))| (name.clone(), fix.clone())).collect();
        let (peer, may_go_on) = (it.peer, it.report.rounds_count < ROUNDS_MAX);
        self.send(peer, PeerMessage::CutDone { shard, cut: questions.cut });
        if !fixes.is_empty() {
            self.effects.push_back(Effect::Mend(Box::new(Mending { fixes })));
        } else if is_moving && may_go_on {
            self.begin_verify_round();
        } else {
            self.finish_verifying();
        }
    }

    /// What was to be mended is in a durable checkpoint.
    pub(crate) fn mended(&mut self, mending: &Mending) {
        let mut mended_count = 0;
        for (name, fix) in &mending.fixes {
            // What changed meanwhile is looked at again.
            if self.state.entry(name) == fix.was {
                self.state.replace_entry(name, fix.right.as_ref());
                mended_count += 1;
            }
        }
        self.state.recount();
        let Some(it) = &mut self.verifying else { return };
        // What was not mended is found again, or is in motion by now.
        it.damaged.clear();
        it.moving = None;
        it.report.mended_count += mended_count;
        it.steps_count += 1;
        if it.report.rounds_count < ROUNDS_MAX {
            self.begin_verify_round();
        } else {
            self.finish_verifying();
        }
    }

    /// What was to be mended could not be made durable; nothing has changed.
    pub(crate) fn mend_failed(&mut self, text: &str) {
        self.end_verifying(Reject::new(RejectCode::StorageFailed, format!("nothing was mended: {text}")));
    }

    fn finish_verifying(&mut self) {
        let Some(it) = self.verifying.take() else { return };
        self.end_cut(it.cut);
        let Verifying { mut report, damaged, moving, ticket, unnamed_count, .. } = *it;
        report.in_motion_count = moving.map_or(0, |moving| moving.len());
        report.damaged_count = damaged.len() + unnamed_count;
        report.damaged = damaged.into_values().map(|(damaged, _)| damaged).collect();
        self.answer(ticket, Answer::Verified(Ok(Box::new(report))));
    }

    /// Ends it without an outcome.
    pub(crate) fn end_verifying(&mut self, reject: Reject) {
        let Some(it) = self.verifying.take() else { return };
        self.end_cut(it.cut);
        let cut = match &it.step {
            Step::CatchingUp { cut, .. } => Some(*cut),
            Step::Comparing(comparing) => Some(comparing.questions.cut),
            _ => None,
        };
        if let Some(cut) = cut {
            self.send(it.peer, PeerMessage::CutDone { shard: self.options.shard, cut });
        }
        self.answer(it.ticket, Answer::Verified(Err(reject)));
    }

    /// The connection to a peer ended, or a new one begins.
    pub(crate) fn end_verifying_with(&mut self, peer: RegionId) {
        if self.verifying.as_ref().is_some_and(|it| it.peer == peer) {
            let text = format!("the connection to region {peer} ended");
            self.end_verifying(Reject::new(RejectCode::NotYet, text).retry_after_ms(1_000));
        }
    }

    pub(crate) fn cancel_verifying(&mut self, ticket: Ticket) {
        if self.verifying.as_ref().is_some_and(|it| it.ticket == ticket) {
            self.end_verifying(Reject::new(RejectCode::TimedOut, "nobody waits for it any more"));
        }
    }

    pub(crate) fn look_after_verifying(&mut self, now: Now) {
        let Some(it) = &mut self.verifying else { return };
        if it.looked.0 != it.steps_count || it.looked.1 == u64::MAX {
            it.looked = (it.steps_count, now.monotonic_ms);
        } else if matches!(it.step, Step::Mending) {
            // The disk decides.
        } else if it.looked.1 + STILL_MS_MAX < now.monotonic_ms {
            let text = match &it.step {
                Step::CatchingUp { .. } => "this region does not come to hold what the other does",
                _ => "the other region does not come to hold what this one does",
            };
            return self.end_verifying(Reject::new(RejectCode::TimedOut, text).retry_after_ms(1_000));
        }
        // Acks of a log that was taken over there never come: its cut tells.
        if matches!(self.verifying.as_ref().map(|it| &it.step), Some(Step::Waiting)) {
            self.ask_cut_to_verify();
        }
    }
}

impl Verifying {
    /// An entry that is not the same there as it was here when it was asked for.
    fn judge(&mut self, state: &State, name: EntryName, theirs: Option<EntryState>) {
        let Step::Comparing(comparing) = &mut self.step else { return };
        if !comparing.judged.insert(name.clone()) {
            return;
        }
        let mine = state.entry(&name);
        if mine == theirs {
            return;
        }
        if state.is_changed_since(self.cut, &name) {
            let is_consistent = match (&mine, &theirs) {
                (Some(mine), Some(theirs)) => mine.may_follow(theirs, &state.logs),
                _ => true,
            };
            if is_consistent {
                comparing.moving.insert(name);
                return;
            }
        }
        if self.damaged.len() >= DAMAGED_MAX && !self.damaged.contains_key(&name) {
            self.unnamed_count += 1;
            return;
        }
        let damaged = Damaged {
            here: mine.as_ref().map(ToString::to_string),
            there: theirs.as_ref().map(ToString::to_string),
            is_here: comparing.wrong.contains(&(name.section(), name.leaf())),
            name: name.clone(),
        };
        self.damaged.insert(name, (damaged, Fix { was: mine, right: theirs }));
    }
}
