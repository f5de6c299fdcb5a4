//! Logs and their records: what regions write, and all that they ship.
//!
//! A log's records are held once for the whole world; a region's vector says how many of them it holds. So nothing
//! can differ between two copies of a log, and a state is all that a region has besides. Start at [`Record`].

/// Regions in the model.
pub const REGIONS: usize = 3;
/// Logs at most: each region's first, and what restarts open.
pub const LOGS: usize = 7;
/// Records in one log at most.
pub const RECORDS: usize = 16;
/// Numbers of the session.
pub const OPS: usize = 3;
/// Register writes.
pub const WRITES: usize = 3;
/// Deletes of the counter.
pub const DELETES: usize = 2;
/// No log, no region.
pub const NONE: u8 = u8::MAX;

/// For each log, how many of its records are applied.
pub type Vector = [u8; LOGS];

/// One record; a batch holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Record {
    /// A session op, logged by the session's authority.
    Op {
        /// Its number, and its digit in the counter.
        number: u8,
        /// The generation it counts under.
        generation: u8,
        /// The settled mark it brings; 0 for none.
        mark: u8,
    },
    /// A session op, logged by another region.
    Cond {
        /// Its number.
        number: u8,
        /// The generation it was admitted under.
        generation: u8,
    },
    /// An add outside any session.
    Add {
        /// Its digit in the counter.
        digit: u8,
        /// The generation it was admitted under.
        generation: u8,
    },
    /// Deletes the counter: opens a generation.
    Delete {
        /// The stamp of the delete.
        generation: u8,
    },
    /// Writes or deletes the register.
    Write {
        /// Which write.
        write: u8,
        /// Its stamp.
        stamp: u8,
        /// Whether it is a delete.
        tombstone: bool,
    },
    /// Takes a log over that has ended.
    Seal {
        /// The log.
        log: u8,
        /// Its end.
        end: u8,
    },
    /// The session takes nothing any more.
    Expire,
    /// Garbage may go: which, stands in the world's table of these.
    Stable {
        /// The place in that table.
        index: u8,
    },
}

/// Says that all members have applied a log through a position, and where their own logs were then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stable {
    /// The log it covers, which is also the log it stands in.
    pub log: u8,
    /// Where it stands.
    pub at: u8,
    /// How far it covers (`w`).
    pub through: u8,
    /// Where the members' own logs were (`U`).
    pub own: Vector,
}

/// How many `Stable` records the model has room for.
pub const STABLES: usize = 3;

/// One log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The region that writes it.
    pub region: u8,
    /// How many records exist anywhere.
    pub len: u8,
    records: [Record; RECORDS],
}

impl std::hash::Hash for Log {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&[self.region, self.len]);
        self.records().hash(state);
    }
}

impl Log {
    const fn new(region: u8) -> Self {
        Self { region, len: 0, records: [Record::Expire; RECORDS] }
    }

    /// All records.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records[..usize::from(self.len)]
    }
}

/// All logs of the world, and the table of `Stable` records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Logs {
    /// How many logs there are.
    pub count: u8,
    all: [Log; LOGS],
    /// The `Stable` records, in the order they were written.
    pub stables: [Option<Stable>; STABLES],
}

impl Logs {
    /// One empty log for each region, numbered like the regions.
    #[must_use]
    pub fn new() -> Self {
        let mut logs = Self { count: 0, all: [Log::new(NONE); LOGS], stables: [None; STABLES] };
        for region in 0..REGIONS as u8 {
            logs.open(region).expect("there is room for each region's first");
        }
        logs
    }

    /// A new log of a region, if there is room.
    pub fn open(&mut self, region: u8) -> Option<u8> {
        let log = self.count;
        *self.all.get_mut(usize::from(log))? = Log::new(region);
        self.count += 1;
        Some(log)
    }

    /// One log.
    #[must_use]
    pub fn get(&self, log: u8) -> &Log {
        &self.all[usize::from(log)]
    }

    /// The numbers of all logs.
    pub fn names(&self) -> std::ops::Range<u8> {
        0..self.count
    }

    /// Writes the record that follows the first `at`. Good rules write only at the end.
    pub fn put(&mut self, log: u8, at: u8, record: Record) {
        let log = &mut self.all[usize::from(log)];
        log.records[usize::from(at)] = record;
        log.len = log.len.max(at + 1);
    }

    /// Forgets what nobody holds.
    pub fn truncate(&mut self, held: &Vector) {
        for (log, &held) in self.all.iter_mut().zip(held) {
            log.len = log.len.min(held);
        }
    }

    /// The first `held` records of a log.
    #[must_use]
    pub fn prefix(&self, log: u8, held: u8) -> &[Record] {
        let records = self.get(log).records();
        &records[..usize::from(held).min(records.len())]
    }

    /// Whether what stands at a dot (log, position from 1) is covered by a `Stable` of log `by` through `through`:
    /// it stands there, or in a log sealed there.
    #[must_use]
    pub fn is_covered(&self, mut dot: (u8, u8), by: u8, through: u8) -> bool {
        for _ in 0..LOGS {
            if dot.0 == by {
                return dot.1 <= through;
            }
            let is_seal = |record: &Record| matches!(record, Record::Seal { log, .. } if *log == dot.0);
            let seal_in = |log: u8| Some((log, self.get(log).records().iter().position(is_seal)? as u8 + 1));
            match self.names().find_map(seal_in) {
                Some(seal) => dot = seal,
                None => return false,
            }
        }
        false
    }

    /// Whether a record stands, among what a vector holds, where a `Stable` of log `by` through `through` covers it.
    #[must_use]
    pub fn is_record_covered(&self, wanted: Record, held: &Vector, by: u8, through: u8) -> bool {
        self.names().any(|log| {
            let mut records = self.prefix(log, held[usize::from(log)]).iter().zip(1..);
            records.any(|(&record, at)| record == wanted && self.is_covered((log, at), by, through))
        })
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self::new()
    }
}
