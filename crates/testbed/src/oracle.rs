//! What the regions must end with, computed without them.
//!
//! Counters come from one plain pass over the columns of the flights file, on purpose not through
//! [`crate::flights::Flight::signals`], so that a mistake there cannot hide here. Registers come from the answers: the
//! greatest stamp among those the writes were answered with wins. Never talks to a region: the caller reads, the
//! oracle compares. Start with [`Oracle::january`] or [`Oracle::new`], end with [`Oracle::compare`].

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use tombolo_causality::Stamp;

use crate::flights;

/// A key whose value in a region is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which key.
    pub key: String,
    /// What it must hold; `None` if it must be absent.
    pub expected: Option<String>,
    /// What was read; `None` if the region has no such key.
    pub found: Option<String>,
}

/// `<key>: expected <value>, found <value>`, with `nothing` for an absent one.
impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(f, "{}: expected {}, found {}", self.key, text(&self.expected), text(&self.found))
    }
}

/// The sums and the winners.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    counters: BTreeMap<String, i128>,
    registers: BTreeMap<String, (Stamp, Option<String>)>,
}

impl Oracle {
    /// Expects nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters of the first `flights_max` flights of the embedded month.
    ///
    /// Errors: as [`Self::of`].
    pub fn january(flights_max: usize) -> io::Result<Self> {
        Self::of(flights::january_bytes()?, flights_max)
    }

    /// The counters of the first `flights_max` flights of a file, plain or zstd.
    ///
    /// Errors: as [`Self::of`].
    pub fn open(path: &Path, flights_max: usize) -> io::Result<Self> {
        Self::of(flights::open_bytes(path)?, flights_max)
    }

    /// The counters of the first `flights_max` rows of plain CSV.
    ///
    /// Errors: what reading gives; `InvalidData` for a row this pass cannot add up. A file that
    /// [`crate::flights::Flights`] reads without error passes here too.
    pub fn of(bytes: impl Read, flights_max: usize) -> io::Result<Self> {
        let mut lines = BufReader::new(bytes).lines();
        let header = lines.next().transpose()?.unwrap_or_default();
        let names: Vec<&str> = header.trim_end().split(',').collect();
        let mut sums = BTreeMap::new();
        for (at, line) in lines.filter(|line| !matches!(line, Ok(line) if line.is_empty())).enumerate() {
            if at == flights_max {
                break;
            }
            let line = line?;
            let fields: BTreeMap<&str, &str> =
                names.iter().copied().zip(line.trim_end().split(',')).collect();
            add_row(&mut sums, &fields).map_err(|reason| {
                io::Error::new(io::ErrorKind::InvalidData, format!("flight {}: {reason}", at + 1))
            })?;
        }
        Ok(Self { counters: sums, registers: BTreeMap::new() })
    }

    /// Notes an add beside those of the file.
    pub fn record_add(&mut self, key: impl Into<String>, delta: i64) {
        *self.counters.entry(key.into()).or_default() += i128::from(delta);
    }

    /// Notes a register write with the stamp it was answered with; the greatest (stamp, then value) stays.
    pub fn record_set(&mut self, key: impl Into<String>, stamp: Stamp, value: impl Into<String>) {
        self.record(key.into(), stamp, Some(value.into()));
    }

    /// Notes a register delete with the stamp it was answered with.
    pub fn record_delete(&mut self, key: impl Into<String>, stamp: Stamp) {
        self.record(key.into(), stamp, None);
    }

    /// Takes in what another oracle noted, as when several writers each kept their own.
    pub fn merge(&mut self, other: Self) {
        for (key, sum) in other.counters {
            *self.counters.entry(key).or_default() += sum;
        }
        for (key, (stamp, value)) in other.registers {
            self.record(key, stamp, value);
        }
    }

    /// Every key with what it must hold, counters as decimal strings; `None` must be absent. Sorted within each kind.
    pub fn expectations(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        let counters = self.counters.iter().map(|(key, sum)| (key.as_str(), Some(sum.to_string())));
        counters.chain(self.registers.iter().map(|(key, (_, value))| (key.as_str(), value.clone())))
    }

    /// Number of keys it expects something of.
    #[must_use]
    pub fn keys_count(&self) -> usize {
        self.counters.len() + self.registers.len()
    }

    /// Reads every key through `read` and gives those that differ.
    ///
    /// Errors: the first that `read` gives.
    pub fn compare<E>(
        &self,
        mut read: impl FnMut(&str) -> Result<Option<String>, E>,
    ) -> Result<Vec<Difference>, E> {
        let mut differences = Vec::new();
        for (key, expected) in self.expectations() {
            let found = read(key)?;
            if found != expected {
                differences.push(Difference { key: key.to_owned(), expected, found });
            }
        }
        Ok(differences)
    }

    fn record(&mut self, key: String, stamp: Stamp, value: Option<String>) {
        let written = (stamp, value);
        let stays = self.registers.get(&key).is_some_and(|known| *known >= written);
        if !stays {
            self.registers.insert(key, written);
        }
    }
}

/// Adds one row to the sums, straight from its columns.
fn add_row(sums: &mut BTreeMap<String, i128>, row: &BTreeMap<&str, &str>) -> Result<(), String> {
    let field = |name: &str| row.get(name).copied().ok_or_else(|| format!("no `{name}`"));
    let number =
        |name: &str| field(name)?.parse::<i128>().map_err(|_| format!("`{name}` is not a whole number"));
    let mut bump = |key: String, by: i128| *sums.entry(key).or_insert(0) += by;
    let dest = field("dest")?;
    bump(["departures:", dest].concat(), 1);
    bump(["departures:carrier:", field("carrier")?].concat(), 1);
    if !["", "NA"].contains(&field("dep_delay")?) {
        bump(["delay_minutes:", dest].concat(), number("dep_delay")?);
    }
    if !["", "NA"].contains(&field("tailnum")?) {
        bump(["miles:tail:", field("tailnum")?].concat(), number("distance")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
