//! What a command prints: human text or one JSON object, always as a whole.
//!
//! Stdout belongs to data. A reader that goes away (`| head`) is no failure: writing stops and the command ends well.

use std::io::{ErrorKind, Write};

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::{CliError, Exit};

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: aligned text that may change between versions.
    #[default]
    Human,
    /// For programs: JSON with a `schema` field; fields are only ever added.
    Json,
}

/// The option `-o`, flattened into every command that prints data.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct OutputOption {
    /// How to print the answer
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value = "human")]
    pub(crate) format: Format,
}

/// Writes text to stdout.
///
/// Errors: [`Exit::Other`] where stdout cannot be written; [`CliError::reader_gone`], which is no failure.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

/// As [`print()`], for data that need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(CliError::reader_gone()),
        Err(error) => Err(CliError::new(Exit::Other, format!("cannot write to stdout: {error}"))),
    }
}

/// Writes one JSON object and a newline to stdout.
///
/// Errors: as [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).expect("what is printed is plain JSON");
    print(&(text + "\n"))
}

/// Says something that is not data, on stderr.
pub(crate) fn note(text: &str) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A table without borders: a header in capitals, columns two spaces apart, numbers to the right.
#[derive(Debug)]
pub(crate) struct Columns {
    table: Table,
}

impl Columns {
    /// Begins a table; a column whose name ends in `>` is aligned to the right.
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut table = Table::new();
        // A table is as wide as its content: a terminal's width must not change what `grep` sees.
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(names.iter().map(|name| name.trim_end_matches('>').to_uppercase()));
        for (at, name) in names.iter().enumerate() {
            let column = table.column_mut(at).expect("the header made the columns");
            column.set_padding((0, 2));
            if name.ends_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table }
    }

    /// Adds a row.
    pub(crate) fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.table.add_row(cells.into_iter().map(|cell| cell.to_string()));
    }

    /// The text, with a newline at its end.
    pub(crate) fn render(&self) -> String {
        self.table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_two_spaces_apart_and_numbers_stand_to_the_right() {
        let mut columns = Columns::new(&["region", "keys>", "state"]);
        columns.row(["eu-west", "7", "ok"]);
        columns.row(["us", "1234", "slow"]);
        assert_eq!(columns.render(), "REGION   KEYS  STATE\neu-west     7  ok\nus       1234  slow\n");
    }
}
