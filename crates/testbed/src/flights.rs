//! Real input: flights out of New York as signals, read as a stream.
//!
//! January 2013 is embedded; the same columns in any other file, plain or zstd, are read alike. Never says what the
//! signals must add up to: that is [`crate::oracle`]. Start with [`Flights::january`] or [`Flights::open`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// January 2013, zstd; source and licence in `data/README.md`.
static JANUARY: &[u8] = include_bytes!("../data/flights-2013-01.csv.zst");

/// Longest line of a flights file; the real ones stay under 100 bytes.
pub const LINE_BYTES_MAX: usize = 4_096;

/// What begins every zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The airports, in the order of the regions they stand for.
pub const ORIGINS: [&str; 3] = ["EWR", "JFK", "LGA"];

/// Why a flights file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FlightsError {
    /// The file or its compression.
    #[error("cannot read flights: {0}")]
    Io(#[from] io::Error),
    /// The header lacks a column.
    #[error("line 1: no column `{0}`")]
    MissingColumn(&'static str),
    /// A row with too few or too many fields.
    #[error("line {line}: {found} fields where the header has {expected}")]
    FieldsCount {
        /// Where.
        line: u64,
        /// Fields found.
        found: u64,
        /// Fields of the header.
        expected: u64,
    },
    /// A field that must not be empty.
    #[error("line {line}: `{column}` is empty")]
    Empty {
        /// Where.
        line: u64,
        /// Which column.
        column: &'static str,
    },
    /// A field that is not a whole number.
    #[error("line {line}: `{column}` is `{found}`, not a whole number")]
    Number {
        /// Where.
        line: u64,
        /// Which column.
        column: &'static str,
        /// The text, cut to 32 characters.
        found: String,
    },
    /// Bytes that are not UTF-8, or that the CSV reader refuses.
    #[error("line {line}: {reason}")]
    Row {
        /// Where.
        line: u64,
        /// What the reader says.
        reason: String,
    },
}

/// One op on one cell, as an application would send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A counter moves.
    Add {
        /// Which counter.
        key: String,
        /// By how much; may be negative or zero.
        delta: i64,
    },
    /// A register is written.
    Set {
        /// Which register.
        key: String,
        /// The new value.
        value: String,
    },
}

/// One scheduled departure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    /// Where it stands in its file; the header is line 1.
    pub line: u64,
    /// The airport it leaves, whose region writes its signals.
    pub origin: String,
    /// The airport it flies to.
    pub dest: String,
    /// The airline.
    pub carrier: String,
    /// The aircraft, if known.
    pub tailnum: Option<String>,
    /// Minutes late (negative: early), if it left.
    pub dep_delay: Option<i64>,
    /// Miles.
    pub distance: i64,
    /// The UTC hour of the scheduled departure.
    pub time_hour: String,
}

impl Flight {
    /// The signals this flight sends, two to five.
    ///
    /// Shape: counters `departures:<dest>` and `departures:carrier:<carrier>` +1, `delay_minutes:<dest>` by the delay
    /// if it left, `miles:tail:<tailnum>` by the distance if the aircraft is known; register `last_seen:<tailnum>` =
    /// `<origin>→<dest> <time_hour>` likewise.
    #[must_use]
    pub fn signals(&self) -> Vec<Signal> {
        let mut signals = Vec::with_capacity(5);
        signals.push(Signal::Add { key: format!("departures:{}", self.dest), delta: 1 });
        signals.push(Signal::Add { key: format!("departures:carrier:{}", self.carrier), delta: 1 });
        if let Some(delta) = self.dep_delay {
            signals.push(Signal::Add { key: format!("delay_minutes:{}", self.dest), delta });
        }
        if let Some(tailnum) = &self.tailnum {
            signals.push(Signal::Add { key: format!("miles:tail:{tailnum}"), delta: self.distance });
            let value = format!("{}→{} {}", self.origin, self.dest, self.time_hour);
            signals.push(Signal::Set { key: format!("last_seen:{tailnum}"), value });
        }
        signals
    }

    /// Which of `regions_count` regions writes this flight, 0-based.
    ///
    /// Shape: with up to three regions the airports go round robin (EWR 0, JFK 1, LGA 2, modulo the count); with more,
    /// each flight moves on by its line, so that every region writes and each airport's flights meet in all of them.
    /// An airport that is none of the three counts as the sum of its bytes.
    #[must_use]
    pub fn region(&self, regions_count: usize) -> usize {
        let airport = ORIGINS.iter().position(|origin| *origin == self.origin);
        let airport = airport.unwrap_or_else(|| self.origin.bytes().map(usize::from).sum());
        let count = regions_count.max(1);
        let step = if count > ORIGINS.len() { self.line as usize % count } else { 0 };
        (airport + step) % count
    }
}

/// A flights file being read.
///
/// Errors: each bad row is one [`FlightsError`] with its line; reading may go on after it, but for [`FlightsError::Io`].
pub struct Flights {
    rows: csv::Reader<Box<dyn Read + Send>>,
    columns: Columns,
    row: csv::StringRecord,
    has_failed: bool,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").field("line", &self.rows.position().line()).finish_non_exhaustive()
    }
}

impl Flights {
    /// The embedded month: 26,865 flights.
    ///
    /// Errors: none in practice; the type is that of any file.
    pub fn january() -> Result<Self, FlightsError> {
        Self::read(january_bytes()?)
    }

    /// Opens a file, plain or zstd by its content.
    ///
    /// Errors: [`FlightsError::Io`], [`FlightsError::MissingColumn`].
    pub fn open(path: &Path) -> Result<Self, FlightsError> {
        Self::read(open_bytes(path)?)
    }

    /// Reads plain CSV with a header.
    ///
    /// Errors: [`FlightsError::Io`], [`FlightsError::MissingColumn`].
    pub fn read(bytes: impl Read + Send + 'static) -> Result<Self, FlightsError> {
        let bounded: Box<dyn Read + Send> = Box::new(BoundedLines { bytes, line_bytes: 0 });
        // Without quoting a line is a row, so that a bound on lines is a bound on memory.
        let mut rows = csv::ReaderBuilder::new().quoting(false).flexible(true).from_reader(bounded);
        let header = rows.headers().map_err(|error| row_error(error, 1))?;
        let columns = Columns::find(header)?;
        Ok(Self { rows, columns, row: csv::StringRecord::new(), has_failed: false })
    }

    fn flight(&self, line: u64) -> Result<Flight, FlightsError> {
        let expected = self.columns.count;
        if self.row.len() != expected {
            let (found, expected) = (self.row.len() as u64, expected as u64);
            return Err(FlightsError::FieldsCount { line, found, expected });
        }
        let text = |at: usize, column| match &self.row[at] {
            "" => Err(FlightsError::Empty { line, column }),
            text => Ok(text.to_owned()),
        };
        let number = |at: usize, column| {
            let found = &self.row[at];
            found.parse::<i64>().map_err(|_| FlightsError::Number {
                line,
                column,
                found: found.chars().take(32).collect(),
            })
        };
        let columns = &self.columns;
        let is_known = |at: usize| !matches!(&self.row[at], "" | "NA");
        Ok(Flight {
            line,
            origin: text(columns.origin, "origin")?,
            dest: text(columns.dest, "dest")?,
            carrier: text(columns.carrier, "carrier")?,
            tailnum: is_known(columns.tailnum).then(|| self.row[columns.tailnum].to_owned()),
            dep_delay: is_known(columns.dep_delay)
                .then(|| number(columns.dep_delay, "dep_delay"))
                .transpose()?,
            distance: number(columns.distance, "distance")?,
            time_hour: text(columns.time_hour, "time_hour")?,
        })
    }
}

impl Iterator for Flights {
    type Item = Result<Flight, FlightsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let mut row = std::mem::take(&mut self.row);
        let read = self.rows.read_record(&mut row);
        self.row = row;
        let line = self.row.position().map_or_else(|| self.rows.position().line(), csv::Position::line);
        match read {
            Ok(true) => Some(self.flight(line)),
            Ok(false) => None,
            Err(error) => {
                self.has_failed = error.is_io_error();
                Some(Err(row_error(error, line)))
            }
        }
    }
}

/// The embedded month as plain CSV.
pub(crate) fn january_bytes() -> io::Result<impl Read + Send + 'static> {
    zstd::stream::read::Decoder::new(JANUARY)
}

/// A file as plain CSV, whatever it is on disk.
pub(crate) fn open_bytes(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    if file.fill_buf()?.starts_with(&ZSTD_MAGIC) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(file)?))
    } else {
        Ok(Box::new(file))
    }
}

fn row_error(error: csv::Error, line: u64) -> FlightsError {
    let reason = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => FlightsError::Io(error),
        csv::ErrorKind::Utf8 { .. } => FlightsError::Row { line, reason: "not UTF-8".into() },
        _ => FlightsError::Row { line, reason },
    }
}

/// Where the columns we need stand.
struct Columns {
    count: usize,
    origin: usize,
    dest: usize,
    carrier: usize,
    tailnum: usize,
    dep_delay: usize,
    distance: usize,
    time_hour: usize,
}

impl Columns {
    fn find(header: &csv::StringRecord) -> Result<Self, FlightsError> {
        let find = |name: &'static str| {
            header.iter().position(|column| column == name).ok_or(FlightsError::MissingColumn(name))
        };
        Ok(Self {
            count: header.len(),
            origin: find("origin")?,
            dest: find("dest")?,
            carrier: find("carrier")?,
            tailnum: find("tailnum")?,
            dep_delay: find("dep_delay")?,
            distance: find("distance")?,
            time_hour: find("time_hour")?,
        })
    }
}

/// Refuses a line longer than [`LINE_BYTES_MAX`] (to within one read) before a row of it is built in memory.
struct BoundedLines<R> {
    bytes: R,
    line_bytes: usize,
}

impl<R: Read> Read for BoundedLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        for (at, piece) in buffer[..count].split(|byte| *byte == b'\n').enumerate() {
            self.line_bytes = if at == 0 { self.line_bytes + piece.len() } else { piece.len() };
            if self.line_bytes > LINE_BYTES_MAX {
                let reason = format!("a line is longer than {LINE_BYTES_MAX} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
