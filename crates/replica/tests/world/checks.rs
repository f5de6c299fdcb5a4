//! What must hold after every step, each named by the invariant it keeps.

use std::collections::BTreeMap;

use tombolo_causality::{Epoch, LogId, RegionId, Seq, SessionId, VersionVector};
use tombolo_codec::records::Seal;
use tombolo_codec::{Batch, Digest, Position};

use crate::disk::{LogName, name_of};

type Ends = Vec<((RegionId, Epoch), Seq)>;

/// All that was ever written, and what every vector was seen to stand for.
#[derive(Default)]
pub(crate) struct Ledger {
    batches: BTreeMap<(LogName, Seq), Digest>,
    states: BTreeMap<Ends, (Digest, usize)>,
    /// Where a session's number was logged; more than once only if a crash took the earlier ones.
    numbers: BTreeMap<(RegionId, u64, u64), Vec<(LogName, Seq)>>,
    seals: BTreeMap<LogName, (Seal, LogName, Seq)>,
}

fn number_key(id: &SessionId, number: u64) -> (RegionId, u64, u64) {
    (id.home, id.random, number)
}

impl Ledger {
    /// W2: a (log, seq) never has two byte strings. R7: only its region writes a log.
    pub(crate) fn appended(
        &mut self,
        batch: &Batch,
        by: (RegionId, Epoch),
        is_w2_on: bool,
    ) -> Result<(), String> {
        let (name, header) = (name_of(batch), batch.header());
        let known = self.batches.get(&(name, header.seq)).copied();
        match known {
            None if name != by => return Err(format!("R7: {by:?} wrote batch {} of {name:?}", header.seq)),
            Some(digest) if is_w2_on && digest != header.digest => {
                return Err(format!("W2: batch {} of {name:?} has two byte strings", header.seq));
            }
            Some(_) if name == by => {
                return Err(format!("W2: batch {} of {name:?} written twice", header.seq));
            }
            _ => {}
        }
        self.batches.insert((name, header.seq), header.digest);
        if name == by {
            let conditional = batch.records().conditionals().map(|conditional| conditional.op);
            for op in batch.records().ops().chain(conditional) {
                self.numbers.entry(number_key(&op.session, op.number)).or_default().push((name, header.seq));
            }
            for seal in batch.records().seals() {
                self.seals.insert((seal.region, seal.epoch), (seal, name, header.seq));
            }
        }
        Ok(())
    }

    /// C2: equal vectors, equal digests.
    pub(crate) fn state(&mut self, vector: &VersionVector, digest: Digest, at: usize) -> Result<(), String> {
        let ends: Ends = vector.iter().collect();
        let (known, first) = *self.states.entry(ends).or_insert((digest, at));
        if known == digest {
            Ok(())
        } else {
            Err(format!("C2: regions {first} and {at} differ at {vector:?}"))
        }
    }

    /// F21: whoever holds the positions a session's number was answered with holds the op.
    pub(crate) fn covers_number(
        &self,
        positions: &[Position],
        id: &SessionId,
        number: u64,
        held: impl Fn(LogName, Seq) -> bool,
    ) -> Result<(), String> {
        let places = self.numbers.get(&number_key(id, number)).map_or(&[][..], Vec::as_slice);
        let held: Vec<(LogName, Seq)> =
            places.iter().copied().filter(|&(name, seq)| held(name, seq)).collect();
        if held.is_empty() {
            return Err(format!("S1: number {number} was answered yes but is in no log"));
        }
        if held.iter().any(|&place| positions.iter().any(|position| self.is_at_or_after(position, place))) {
            return Ok(());
        }
        Err(format!("F21: number {number} lies at {held:?}, but was answered with {positions:?}"))
    }

    fn is_at_or_after(&self, position: &Position, mut place: (LogName, Seq)) -> bool {
        let log = (position.log.region, position.log.epoch);
        loop {
            if place.0 == log {
                return position.seq >= place.1;
            }
            match self.seals.get(&place.0) {
                Some(&(seal, by, at)) if seal.end >= place.1 => place = (by, at),
                _ => return false,
            }
        }
    }

    /// Whether a log was taken over.
    pub(crate) fn is_sealed(&self, log: LogId) -> bool {
        self.seals.contains_key(&(log.region, log.epoch))
    }
}

/// C2b, S1: of one counter's digits each is 0 or 1, and none goes back to 0.
pub(crate) fn check_digits(key: usize, before: u64, value: i128, may_shrink: bool) -> Result<u64, String> {
    let after = u64::try_from(if key.is_multiple_of(2) { value } else { -value })
        .map_err(|_| format!("S1: counter a{key} is {value}"))?;
    if after & 0xaaaa_aaaa_aaaa_aaaa != 0 {
        return Err(format!("S1: an add to a{key} counts twice: {after:#x}"));
    }
    if !may_shrink && before & !after != 0 {
        return Err(format!("C2b: an add to a{key} vanished: {before:#x} became {after:#x}"));
    }
    Ok(after)
}
