//! Recovery of one log: what of it is whole, what a power cut tore, what rotted.
//!
//! Damage is cut only where it lies after the last durable mark and no valid batch follows it (W3). The marks are: the
//! checkpoint; the name of the last segment, which was created only after everything before it was synced; in logs of
//! the own region, the durable-through of every batch that verifies; and every seal in another log of the shard, as a
//! batch is taken in only once what it seals is durable here. Everything else is quarantined and reported, never
//! removed. Start at [`recover_logs`]; the look at the files, which changes nothing, is `Survey`; what is then done to
//! them is in `repair.rs`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use tombolo_causality::{ClusterId, LogId, Seq, Time};
use tombolo_codec::Batch;
use tombolo_mutants::{Mutant, is_planted};

use crate::disk::{Disk, list_if_there};
use crate::error::WalError;
use crate::index::{LogIndex, SegmentIndex};
use crate::log::{KnownEnd, LogWriter, WalSettings};
use crate::repair;
use crate::scan::{Found, SegmentScan};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, log_dir, parse_segment_name, segment_path};

/// What recovery reads at a time.
const SCAN_WINDOW_BYTES: usize = 4 * 1_024 * 1_024;

/// What a piece of damage means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DamageKind {
    /// A power cut tore what no sync had covered, nothing follows it: cut off, nothing acked is lost.
    Torn,
    /// After the last durable mark, but valid batches follow. A power cut during a sync of several batches leaves
    /// this, and so does rot in the last synced group: nobody can tell from the file. Quarantined; peers that hold
    /// the range settle it, and where none does, nothing of it had left this region.
    ///
    /// Or only the checkpoint says that it was durable: rot, or the power went between the checkpoint with a difference,
    /// which covers it, and the files' going on behind that. Nothing of the state is missing.
    Suspect,
    /// At or before another durable mark, or bytes that no power cut makes: quarantined; the range must come from peers.
    Rot,
}

/// What was found where a batch was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// Bytes that do not verify, or that the disk does not give.
    #[error("{0}")]
    Unreadable(String),
    /// The segment's header is not the one its name asks for.
    #[error("the segment's header is damaged or another segment's")]
    SegmentHeader,
    /// A whole batch, but another one's place (W4).
    #[error("a whole batch, but that of {log:?} {seq:?}")]
    Misplaced {
        /// Its log.
        log: LogId,
        /// Its seq.
        seq: Seq,
    },
    /// The batch follows another batch than the one before it: the log forked (W2).
    #[error("the batch does not follow the one before it")]
    BrokenChain,
    /// Whole, but not for this build or this cluster.
    #[error("{0}")]
    Foreign(String),
    /// There is no such segment.
    #[error("the segments before it are missing")]
    Missing,
    /// Nothing is damaged, but another log took this one over at a later end.
    #[error("it ends before {0}, where another log took it over")]
    EndsBeforeSeal(Seq),
}

impl DamageReason {
    /// Whether no power cut leaves this.
    const fn is_conclusive(&self) -> bool {
        !matches!(self, Self::Unreadable(_) | Self::SegmentHeader)
    }
}

/// One piece of damage, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// In which log.
    pub log: LogId,
    /// In which file.
    pub path: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What it means.
    pub kind: DamageKind,
    /// What was found there.
    pub reason: DamageReason,
    /// First and last seq that this log holds no more; none where nothing was lost.
    pub lost: Option<(Seq, Seq)>,
    /// Whether the checkpoint covers the lost range: the state is whole, only the log has a hole.
    pub is_covered: bool,
    /// Where the file went.
    pub quarantined: Option<String>,
}

/// What recovery made of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredLog {
    /// Which.
    pub log: LogId,
    /// The lowest seq on disk.
    pub first: Option<Seq>,
    /// Its end: all through it is durable, on disk or in the checkpoint.
    pub end: KnownEnd,
    /// The greatest clock reading of its batches and of the known end.
    pub clock: Time,
    /// How many batches were handed over.
    pub batches_count: u64,
    /// What was damaged.
    pub damage: Vec<Damage>,
}

/// Recovers logs of one shard, and those that they seal: hands the batches after `known` over, log by log in order,
/// repairs what a crash left, and gives writers that go on behind them.
///
/// Everything it reports is durable: an earlier process may have died before its sync, or because of a failed one,
/// which leaves pages in memory that look clean and are not on the disk; so what no mark covers is written again and
/// synced.
///
/// Errors: [`WalError::WrongCluster`], or the disk's. Damage is not an error; see [`RecoveredLog::damage`].
pub fn recover_logs<D: Disk + Clone>(
    disk: &D,
    settings: WalSettings,
    logs: &BTreeSet<LogId>,
    known: &BTreeMap<LogId, KnownEnd>,
    each: &mut dyn FnMut(Batch),
) -> Result<Vec<(LogWriter<D>, RecoveredLog)>, WalError> {
    let mut survey = |log| {
        repair::finish(disk, log)?;
        let known = known.get(&log).copied().unwrap_or(KnownEnd::START);
        Survey::run(disk, settings.cluster, log, known, each)
    };
    let mut surveys = BTreeMap::new();
    for &log in logs {
        surveys.insert(log, survey(log)?);
    }
    // Nothing is repaired before all logs were looked at: what looks torn may be sealed.
    let sealed: Vec<(LogId, Seq)> = surveys.values().flat_map(|survey| survey.sealed.clone()).collect();
    for (log, end) in sealed {
        let sealed = match surveys.entry(log) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(missing) => missing.insert(survey(log)?),
        };
        sealed.sealed_at = end.max(sealed.sealed_at);
    }
    surveys.into_values().map(|survey| finish(disk, settings, survey)).collect()
}

/// Repairs a log that was looked at.
fn finish<D: Disk + Clone>(
    disk: &D,
    settings: WalSettings,
    mut survey: Survey,
) -> Result<(LogWriter<D>, RecoveredLog), WalError> {
    let (log, known) = (survey.log, survey.known);
    survey.note_seal();
    let mut damage = survey.damage(settings);
    if !damage.is_empty() {
        repair::run(disk, settings, log, &survey, &mut damage)?;
        let handed_over = (survey.clock, survey.batches_count);
        survey = Survey::run(disk, settings.cluster, log, known, &mut |_| {})?;
        (survey.clock, survey.batches_count) = handed_over;
        if let Some(again) = survey.breaks.first() {
            let path = survey.path_of(again);
            return Err(WalError::Rot {
                log,
                seq: again.seq,
                path,
                what: format!("{} after repair", again.reason),
            });
        }
    }
    let (index, end, clock) = (survey.index(), survey.end, survey.clock);
    repair::settle(disk, log, index.tail(), known.seq)?;
    let recovered =
        RecoveredLog { log, first: index.first(), end, clock, batches_count: survey.batches_count, damage };
    Ok((LogWriter::new(disk.clone(), settings, log, index, end), recovered))
}

/// Consecutive batches in one segment.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) first: Seq,
    /// Where it starts and ends in the file.
    pub(crate) range: (u64, u64),
    /// Whether everything before it is there, or in the checkpoint.
    pub(crate) is_usable: bool,
}

/// One segment as it was found.
#[derive(Debug)]
pub(crate) struct SurveyedSegment {
    pub(crate) first: Seq,
    pub(crate) file_bytes: u64,
    pub(crate) has_header: bool,
    /// Whether everything before it is there, or in the checkpoint.
    pub(crate) is_usable: bool,
    pub(crate) runs: Vec<Run>,
    index: SegmentIndex,
}

/// A place where the next batch was expected and is not.
#[derive(Debug)]
pub(crate) struct Break {
    pub(crate) segment: usize,
    pub(crate) offset: u64,
    pub(crate) seq: Seq,
    pub(crate) reason: DamageReason,
    /// The next valid batch behind it, in whichever segment.
    resumed_at: Option<Seq>,
    /// Whether the batches behind it can still be used.
    is_covered: bool,
}

/// A look at all segments of a log that changes nothing.
#[derive(Debug)]
pub(crate) struct Survey {
    cluster: ClusterId,
    log: LogId,
    known: KnownEnd,
    pub(crate) segments: Vec<SurveyedSegment>,
    pub(crate) breaks: Vec<Break>,
    pub(crate) end: KnownEnd,
    pub(crate) clock: Time,
    pub(crate) batches_count: u64,
    next: KnownEnd,
    is_usable: bool,
    last_seen: Seq,
    marked: Seq,
    /// Logs that its batches behind the checkpoint took over, with their ends. What the checkpoint covers, it knows.
    sealed: Vec<(LogId, Seq)>,
    /// Where another log took this one over, if one did.
    sealed_at: Seq,
}

impl Survey {
    /// Reads every segment, and hands over the batches after `known` that nothing is missing before.
    pub(crate) fn run<D: Disk>(
        disk: &D,
        cluster: ClusterId,
        log: LogId,
        known: KnownEnd,
        each: &mut dyn FnMut(Batch),
    ) -> Result<Self, WalError> {
        let mut survey = Self {
            cluster,
            log,
            known,
            segments: Vec::new(),
            breaks: Vec::new(),
            end: known,
            clock: known.clock,
            batches_count: 0,
            next: KnownEnd::START,
            is_usable: true,
            last_seen: Seq::ZERO,
            marked: Seq::ZERO,
            sealed: Vec::new(),
            sealed_at: Seq::ZERO,
        };
        let names = list_if_there(disk, &log_dir(log))?;
        let mut firsts: Vec<Seq> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
        firsts.sort_unstable();
        if let Some(first) = firsts.first() {
            // What a pruned log began with is covered by the checkpoint; what is not, is missing.
            survey.next = survey.end_at(Seq(first.0 - 1).min(known.seq));
        }
        for first in firsts {
            survey.segment(disk, first, each)?;
        }
        Ok(survey)
    }

    /// The end `seq` as far as it is known: only the checkpoint's own end has a digest.
    fn end_at(&self, seq: Seq) -> KnownEnd {
        match seq {
            _ if seq == self.known.seq => self.known,
            Seq::ZERO => KnownEnd::START,
            _ => KnownEnd { seq, digest: None, ..KnownEnd::START },
        }
    }

    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        first: Seq,
        each: &mut dyn FnMut(Batch),
    ) -> Result<(), WalError> {
        let (cluster, log) = (self.cluster, self.log);
        let path = segment_path(log, first);
        let mut scan = SegmentScan::open(disk, &path, SCAN_WINDOW_BYTES)?;
        let header = scan.header();
        if let Some(SegmentHeader { cluster: found, .. }) = header
            && found != cluster
        {
            return Err(WalError::WrongCluster { path, expected: cluster, found });
        }
        let has_header = header == Some(SegmentHeader { cluster, log, first });
        let index = SegmentIndex::new(first);
        let file_bytes = scan.len();
        self.segments.push(SurveyedSegment {
            first,
            file_bytes,
            has_header,
            is_usable: true,
            runs: Vec::new(),
            index,
        });
        if first > self.next.seq.next() {
            self.resume(first, 0);
        }
        self.segments.last_mut().expect("just pushed").is_usable = self.is_usable;
        if !has_header {
            self.note(0, DamageReason::SegmentHeader);
        }
        let mut at = SEGMENT_HEADER_BYTES as u64;
        let mut is_in_run = false;
        loop {
            let damage = match scan.at(at, cluster) {
                Found::End => return Ok(()),
                Found::Batch(batch) => match self.misplaced(&batch) {
                    None => {
                        at = self.take(batch, at, &mut is_in_run, each);
                        continue;
                    }
                    Some(reason) => reason,
                },
                Found::Damage(what) => DamageReason::Unreadable(what),
                Found::Foreign(what) => DamageReason::Foreign(what),
            };
            self.note(at, damage);
            is_in_run = false;
            if is_planted(Mutant::CutAtFirstBadDigest) {
                return Ok(());
            }
            let Some((found_at, batch)) = scan.search(at + 1, cluster, log, self.next.seq.next()) else {
                return Ok(());
            };
            self.resume(batch.header().seq, found_at);
            if let Some(reason) = self.misplaced(&batch) {
                // The right seq under another chain: nothing behind it can be trusted to belong here.
                self.note(found_at, reason);
                return Ok(());
            }
            at = found_at;
        }
    }

    /// Why a verified batch is not the next one, if it is not.
    fn misplaced(&self, batch: &Batch) -> Option<DamageReason> {
        let header = batch.header();
        if header.log != self.log || header.seq != self.next.seq.next() {
            return Some(DamageReason::Misplaced { log: header.log, seq: header.seq });
        }
        let follows = self.next.digest.is_none_or(|digest| digest == header.previous);
        let is_known =
            header.seq != self.known.seq || self.known.digest.is_none_or(|digest| digest == header.digest);
        (!follows || !is_known).then_some(DamageReason::BrokenChain)
    }

    fn note(&mut self, offset: u64, reason: DamageReason) {
        let (segment, seq) = (self.segments.len() - 1, self.next.seq.next());
        // A break that nothing has followed yet is one with the next.
        let is_open =
            self.breaks.last().is_some_and(|last| last.resumed_at.is_none() && last.segment == segment);
        if !is_open || reason.is_conclusive() {
            self.breaks.push(Break { segment, offset, seq, reason, resumed_at: None, is_covered: false });
        }
    }

    /// Goes on at a batch that is not the next one.
    fn resume(&mut self, seq: Seq, offset: u64) {
        let before = Seq(seq.0 - 1);
        let is_covered = before <= self.known.seq.max(self.next.seq);
        let expected = self.next.seq.next();
        let mut is_explained = is_covered;
        for earlier in self.breaks.iter_mut().filter(|earlier| earlier.resumed_at.is_none()) {
            earlier.resumed_at = Some(seq);
            earlier.is_covered = is_covered;
            is_explained = true;
        }
        if !is_explained {
            let (segment, reason) = (self.segments.len() - 1, DamageReason::Missing);
            self.breaks.push(Break {
                segment,
                offset,
                seq: expected,
                reason,
                resumed_at: Some(seq),
                is_covered,
            });
        }
        self.is_usable &= is_covered;
        if before > self.next.seq {
            self.next = self.end_at(before);
        }
    }

    /// Takes the next batch in; where the one after it stands.
    fn take(&mut self, batch: Batch, at: u64, is_in_run: &mut bool, each: &mut dyn FnMut(Batch)) -> u64 {
        let header = batch.header().clone();
        let after = at + batch.bytes().len() as u64;
        for open in self.breaks.iter_mut().filter(|open| open.resumed_at.is_none()) {
            // Damage that cost no batch: a segment's header.
            open.resumed_at = Some(header.seq);
            open.is_covered = true;
        }
        let is_usable = self.is_usable;
        let segment = self.segments.last_mut().expect("batches lie in segments");
        if !*is_in_run {
            segment.runs.push(Run { first: header.seq, range: (at, at), is_usable });
            *is_in_run = true;
        }
        segment.runs.last_mut().expect("just made sure").range.1 = after;
        if segment.index.last.next() == header.seq && segment.index.end == at {
            segment.index.push(header.seq, batch.bytes().len());
        }
        self.last_seen = self.last_seen.max(header.seq);
        self.marked = self.marked.max(header.durable_through);
        if header.seq > self.known.seq {
            let shard = self.log.shard;
            let sealed =
                batch.seals().map(|it| (LogId { shard, region: it.region, epoch: it.epoch }, it.end));
            self.sealed.extend(sealed);
        }
        self.next = KnownEnd::after(&batch);
        if is_usable && header.seq >= self.end.seq {
            self.end = self.next;
        }
        if is_usable {
            self.clock = self.clock.max(header.clock);
        }
        if is_usable && header.seq > self.known.seq {
            self.batches_count += 1;
            each(batch);
        }
        after
    }

    /// The seq through which the log was certainly durable, the checkpoint apart.
    fn mark(&self, settings: WalSettings) -> Seq {
        let last_segment = self.segments.last().map_or(Seq::ZERO, |segment| Seq(segment.first.0 - 1));
        // A peer's durable-through speaks of the peer's disk.
        let own = if self.log.region == settings.region { self.marked } else { Seq::ZERO };
        last_segment.max(own).max(self.sealed_at)
    }

    /// Notes the break of a log that ends, undamaged, before the end at which another took it over: there is no file
    /// to blame it on.
    fn note_seal(&mut self) {
        let is_broken = self.breaks.last().is_some_and(|last| last.resumed_at.is_none());
        let end = self.next.seq.max(self.known.seq);
        if end < self.sealed_at && !is_broken {
            let reason = DamageReason::EndsBeforeSeal(self.sealed_at);
            let (segment, seq) = (self.segments.len(), end.next());
            self.breaks.push(Break { segment, offset: 0, seq, reason, resumed_at: None, is_covered: false });
        }
    }

    /// What the breaks mean. Behind the first that the checkpoint does not cover, everything is lost with it.
    pub(crate) fn damage(&self, settings: WalSettings) -> Vec<Damage> {
        let is_careless = is_planted(Mutant::CutAtFirstBadDigest);
        let (mark, known) =
            if is_careless { (Seq::ZERO, Seq::ZERO) } else { (self.mark(settings), self.known.seq) };
        let mut all = Vec::new();
        for found in &self.breaks {
            let is_followed = found.resumed_at.is_some_and(|seq| seq > found.seq);
            let is_covered = found.seq <= known;
            let kind = if found.reason.is_conclusive() || found.seq <= mark {
                DamageKind::Rot
            } else if found.resumed_at.is_some() || is_covered {
                DamageKind::Suspect
            } else {
                DamageKind::Torn
            };
            let lost_through = match found.resumed_at {
                Some(seq) if found.is_covered => Seq(seq.0 - 1),
                _ if kind == DamageKind::Torn => Seq::ZERO,
                // An unreadable last batch is lost with a seq of its own.
                _ => self.last_seen.max(mark).max(known).max(found.seq),
            };
            let lost = (lost_through >= found.seq).then_some((found.seq, lost_through));
            all.push(Damage {
                log: self.log,
                path: self.path_of(found),
                offset: found.offset,
                kind,
                reason: found.reason.clone(),
                lost,
                is_covered: lost.is_none() || lost_through <= self.known.seq,
                quarantined: None,
            });
            if is_followed && !found.is_covered {
                break;
            }
        }
        all
    }

    pub(crate) fn path_of(&self, found: &Break) -> String {
        let segment = self.segments.get(found.segment);
        segment.map_or_else(|| log_dir(self.log), |segment| segment_path(self.log, segment.first))
    }

    fn index(&self) -> LogIndex {
        let mut index = LogIndex::default();
        for segment in &self.segments {
            let mut entry = segment.index.clone();
            entry.file_bytes = segment.file_bytes;
            index.push_segment(entry);
        }
        index
    }
}

#[cfg(test)]
mod tests;
