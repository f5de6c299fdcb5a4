//! What may go, and when: floors under sessions, and the stability records that say everybody has seen enough.
//!
//! Only logged records enter, so that equal vectors drop the same things (C2): a floor refuses from its application
//! on; tables and tombstones go once the state reaches all that a [`Stable`] names (design.md §3.4).

use std::collections::BTreeMap;

use tombolo_causality::{RegionId, Seq, SessionId, Time};
use tombolo_codec::checkpoint::{FloorState, StableState};
use tombolo_codec::records::{Expire, Seal, Stable};
use tombolo_crdt::Dot;
use xxhash_rust::xxh3::xxh3_128;

use crate::state::logs::{LogName, Logs};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Floor {
    dot: Dot<LogName>,
    home: RegionId,
    before: Time,
}

/// Floors and stability records of a shard.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    /// Ordered, so that equal states list them alike.
    floors: Vec<Floor>,
    forgotten: BTreeMap<RegionId, Time>,
    stables: BTreeMap<Dot<LogName>, Stable>,
}

/// What a reached stability record lets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Tombstones that this log wrote through `through`.
    pub(crate) log: LogName,
    pub(crate) through: Seq,
    /// Tables of sessions of these homes opened before.
    pub(crate) forgotten: Vec<(RegionId, Time)>,
}

impl Garbage {
    /// Sessions of a home opened before this take nothing.
    pub(crate) fn floor(&self, home: RegionId) -> Time {
        let floors = self.floors.iter().filter(|floor| floor.home == home).map(|floor| floor.before);
        floors.chain(self.forgotten.get(&home).copied()).max().unwrap_or(Time::ZERO)
    }

    /// Whether a session's tables are gone: late records of it change nothing.
    pub(crate) fn is_forgotten(&self, session: &SessionId) -> bool {
        self.forgotten.get(&session.home).is_some_and(|&before| session.opened < before)
    }

    /// Whether floors wait for a stability record of a log.
    pub(crate) fn has_floors_of(&self, log: LogName) -> bool {
        self.floors.iter().any(|floor| floor.dot.log == log)
    }

    /// Whether a stability record of a log waits to be reached.
    pub(crate) fn has_stables_of(&self, log: LogName) -> bool {
        self.stables.keys().any(|dot| dot.log == log)
    }

    /// The floors that a stability record of `log` through `through` would make final.
    pub(crate) fn floors_through(&self, log: LogName, through: Seq) -> Vec<(RegionId, Time)> {
        let covered = self.floors.iter().filter(|floor| floor.dot.log == log && floor.dot.seq <= through);
        covered.map(|floor| (floor.home, floor.before)).collect()
    }

    pub(crate) fn expire(&mut self, expire: Expire, dot: Dot<LogName>) {
        let floor = Floor { dot, home: expire.home, before: expire.before };
        let at = self.floors.partition_point(|known| *known < floor);
        self.floors.insert(at, floor);
    }

    pub(crate) fn stable(&mut self, stable: Stable, dot: Dot<LogName>) {
        self.stables.insert(dot, stable);
    }

    /// What the stability records of a log still wait for: its seal waits for the same, for its positions end with it.
    pub(crate) fn waits_for(&self, log: LogName, logs: &Logs) -> Option<(LogName, Seq)> {
        let waiting = self.stables.iter().filter(|(dot, _)| dot.log == log);
        waiting.flat_map(|(_, stable)| &stable.members).find_map(|member| {
            let name = (member.region, member.epoch);
            (!logs.holds(name, member.end) && logs.sealed(name).is_none()).then_some((name, member.end))
        })
    }

    /// The next stability record that the state has reached; call until there is none.
    ///
    /// One that names more of a log than there will ever be (its region lost that tail, and so did everybody) is void:
    /// nobody can have reached it.
    pub(crate) fn take_reached(&mut self, logs: &Logs) -> Option<Reached> {
        let is_void = |stable: &Stable| {
            stable.members.iter().any(|member| {
                let name = (member.region, member.epoch);
                logs.sealed(name).is_some_and(|sealed| sealed.end < member.end)
            })
        };
        self.stables.retain(|_, stable| !is_void(stable));
        let holds = |member: &Seal| logs.holds((member.region, member.epoch), member.end);
        let dot = *self.stables.iter().find(|(_, stable)| stable.members.iter().all(holds))?.0;
        let stable = self.stables.remove(&dot)?;
        let (log, through) = (dot.log, stable.through);
        let is_covered = |floor: &Floor| floor.dot.log == log && floor.dot.seq <= through;
        let mut forgotten = Vec::new();
        for floor in self.floors.iter().filter(|floor| is_covered(floor)) {
            let known = self.forgotten.entry(floor.home).or_insert(floor.before);
            *known = floor.before.max(*known);
            forgotten.push((floor.home, *known));
        }
        self.floors.retain(|floor| !is_covered(floor));
        Some(Reached { log, through, forgotten })
    }

    /// A log was taken over: what stood in it stands in the record that says so.
    pub(crate) fn fold(&mut self, sealed: LogName, into: Dot<LogName>) {
        for floor in self.floors.iter_mut().filter(|floor| floor.dot.log == sealed) {
            floor.dot = into;
        }
        self.floors.sort_unstable();
    }

    /// Joins another region's: what one side lacks although it has seen where it was written, it has acted on.
    pub(crate) fn join(
        &mut self,
        theirs: Self,
        they_hold: impl Fn(&Dot<LogName>) -> bool,
        holds: impl Fn(&Dot<LogName>) -> bool,
    ) {
        self.floors.retain(|floor| theirs.floors.contains(floor) || !they_hold(&floor.dot));
        self.stables.retain(|dot, _| theirs.stables.contains_key(dot) || !they_hold(dot));
        for floor in theirs.floors.iter().filter(|floor| !holds(&floor.dot)) {
            if let Err(at) = self.floors.binary_search(floor) {
                self.floors.insert(at, *floor);
            }
        }
        self.stables.extend(theirs.stables.into_iter().filter(|(dot, _)| !holds(dot)));
        for (home, before) in theirs.forgotten {
            let known = self.forgotten.entry(home).or_insert(before);
            *known = before.max(*known);
        }
    }

    /// A canonical digest of it all.
    pub(crate) fn digest(&self) -> u128 {
        if self.floors.is_empty() && self.forgotten.is_empty() && self.stables.is_empty() {
            return 0;
        }
        let mut out = Vec::new();
        let put_dot = |out: &mut Vec<u8>, dot: &Dot<LogName>| {
            out.extend_from_slice(&dot.log.0.get().to_le_bytes());
            out.extend_from_slice(&dot.log.1.0.to_le_bytes());
            out.extend_from_slice(&dot.seq.0.to_le_bytes());
        };
        for floor in &self.floors {
            out.push(1);
            put_dot(&mut out, &floor.dot);
            out.extend_from_slice(&floor.home.get().to_le_bytes());
            out.extend_from_slice(&floor.before.0.to_le_bytes());
        }
        for (home, before) in &self.forgotten {
            out.push(2);
            out.extend_from_slice(&home.get().to_le_bytes());
            out.extend_from_slice(&before.0.to_le_bytes());
        }
        for (dot, stable) in &self.stables {
            out.push(3);
            put_dot(&mut out, dot);
            out.extend_from_slice(&stable.through.0.to_le_bytes());
            for member in &stable.members {
                put_dot(&mut out, &Dot { log: (member.region, member.epoch), seq: member.end });
            }
        }
        xxh3_128(&out)
    }

    pub(crate) fn dump(&self) -> (Vec<FloorState>, Vec<Expire>, Vec<StableState>) {
        let seal = |dot: &Dot<LogName>| Seal { region: dot.log.0, epoch: dot.log.1, end: dot.seq };
        let floors = self.floors.iter().map(|floor| FloorState {
            floor: Expire { home: floor.home, before: floor.before },
            dot: seal(&floor.dot),
        });
        let forgotten = self.forgotten.iter().map(|(&home, &before)| Expire { home, before });
        let stables =
            self.stables.iter().map(|(dot, stable)| StableState { stable: stable.clone(), dot: seal(dot) });
        (floors.collect(), forgotten.collect(), stables.collect())
    }

    pub(crate) fn restore(floors: &[FloorState], forgotten: &[Expire], stables: &[StableState]) -> Self {
        let dot = |seal: &Seal| Dot { log: (seal.region, seal.epoch), seq: seal.end };
        let mut out = Self::default();
        floors.iter().for_each(|state| out.expire(state.floor, dot(&state.dot)));
        out.forgotten = forgotten.iter().map(|floor| (floor.home, floor.before)).collect();
        stables.iter().for_each(|state| out.stable(state.stable.clone(), dot(&state.dot)));
        out
    }
}
