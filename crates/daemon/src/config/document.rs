//! A TOML file read by its table of keys: typed values with their places, and a problem for all that does not fit.
//!
//! It knows forms and bounds, never what a key means. Start at [`Source::parse`], then [`Section`].

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{Place, Placed, Problems, nearest, quoted};
use super::keys::{Absent, Key, Shape, Value};

/// The text of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// Relative to the cluster directory.
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl<'a> Source<'a> {
    /// The tables of the file; none if it is not TOML, with a problem for each place where it is not.
    pub(super) fn parse(self, problems: &mut Problems) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let mut line_last = 0;
        for error in &errors {
            let place = self.place(error.span().unwrap_or(0..0));
            // Whatever else is wrong on a line mostly follows from the first.
            if place.line != line_last {
                problems.add(&place, error.message().lines().collect::<Vec<_>>().join(", "));
            }
            line_last = place.line;
        }
        errors.is_empty().then(|| table.into_inner())
    }

    fn place(self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// The keys of one section, or of the top of the file.
#[derive(Debug)]
pub(super) struct Section<'a> {
    source: Source<'a>,
    /// Empty at the top of the file.
    name: &'static str,
    shape: &'static Shape,
    /// None if the section does not stand in the file.
    table: Option<&'a DeTable<'a>>,
    /// Where the section begins.
    pub(super) place: Place,
}

impl<'a> Section<'a> {
    /// The top of a file.
    pub(super) fn top(
        source: Source<'a>,
        shape: &'static Shape,
        table: &'a DeTable<'a>,
        problems: &mut Problems,
    ) -> Self {
        let top = Self { source, name: "", shape, table: Some(table), place: Place::start_of(source.file) };
        top.report_unknown(shape, problems);
        top
    }

    fn open(
        &self,
        key: &'static Key,
        shape: &'static Shape,
        table: &'a DeTable<'a>,
        place: Place,
        problems: &mut Problems,
    ) -> Self {
        let section = Self { source: self.source, name: key.name, shape, table: Some(table), place };
        section.report_unknown(self.shape, problems);
        section
    }

    fn report_unknown(&self, file: &'static Shape, problems: &mut Problems) {
        let names = self.table.into_iter().flat_map(DeTable::keys);
        for name in names.filter(|name| self.shape.key(name.get_ref()).is_none()) {
            let hint = unknown_key_hint(name.get_ref(), file, self.shape);
            let message = format!("unknown key `{}`", name.get_ref().escape_debug());
            problems.add_with_hint(&self.source.place(name.span()), message, hint);
        }
    }

    /// An integer within its bounds.
    pub(super) fn number(&self, name: &str, problems: &mut Problems) -> Option<Placed<u64>> {
        let key = self.key(name);
        let Value::Number { min, max, .. } = key.value else { unreachable!("`{name}` is read as a number") };
        let Some((value, place)) = self.find(key, problems) else {
            return match key.absent {
                Absent::Number(value) => Some(Placed { value, place: self.place.clone() }),
                _ => None,
            };
        };
        let DeValue::Integer(integer) = value else {
            problems.add(&place, format!("`{name}` must be an integer, not {}", described(value)));
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.filter(|number| (min..=max).contains(number)) {
            Some(value) => Some(Placed { value, place }),
            None => {
                problems.add(&place, format!("`{name}` is {integer}, outside {min}..={max}"));
                None
            }
        }
    }

    /// Text that is not empty, or a word of the key's choice.
    pub(super) fn text(&self, name: &str, problems: &mut Problems) -> Option<Placed<String>> {
        let key = self.key(name);
        let Some((value, place)) = self.find(key, problems) else {
            return match key.absent {
                Absent::Text(value) => Some(Placed { value: value.to_owned(), place: self.place.clone() }),
                _ => None,
            };
        };
        let DeValue::String(text) = value else {
            problems.add(&place, format!("`{name}` must be a string, not {}", described(value)));
            return None;
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            problems.add(&place, format!("`{name}` must not be empty or hold control characters"));
            return None;
        }
        if let Value::Choice(words) = key.value
            && !words.contains(&text.as_ref())
        {
            let words_hint = || format!("it is one of {}", quoted(words.iter().copied()));
            let hint = nearest(text, words.iter().copied()).map_or_else(words_hint, did_you_mean);
            problems.add_with_hint(&place, format!("`{name}` cannot be `{text}`"), hint);
            return None;
        }
        Some(Placed { value: text.to_string(), place })
    }

    /// `[name]`; one that does not stand in the file has all its defaults.
    pub(super) fn section(&self, name: &str, problems: &mut Problems) -> Self {
        let key = self.key(name);
        let Value::Section(shape) = key.value else { unreachable!("`{name}` is read as a section") };
        let absent =
            Self { source: self.source, name: key.name, shape, table: None, place: self.place.clone() };
        let Some((value, place)) = self.find(key, problems) else { return absent };
        match value {
            DeValue::Table(table) => self.open(key, shape, table, place, problems),
            other => {
                problems
                    .add(&place, format!("`{name}` must be a section `[{name}]`, not {}", described(other)));
                absent
            }
        }
    }

    /// All `[[name]]`, in their order.
    pub(super) fn sections(&self, name: &str, problems: &mut Problems) -> Vec<Self> {
        let key = self.key(name);
        let Value::Sections(shape) = key.value else { unreachable!("`{name}` is read as sections") };
        let Some((value, place)) = self.find(key, problems) else { return Vec::new() };
        let wrong =
            |other: &DeValue<'_>| format!("`{name}` must be sections `[[{name}]]`, not {}", described(other));
        let DeValue::Array(array) = value else {
            problems.add(&place, wrong(value));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            let place = self.source.place(item.span());
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(self.open(key, shape, table, place, problems));
                }
                other => problems.add(&place, wrong(other)),
            }
        }
        sections
    }

    /// The value of a key and its place; a key that must stand and does not is a problem.
    fn find(&self, key: &'static Key, problems: &mut Problems) -> Option<(&'a DeValue<'a>, Place)> {
        // Of a section that is missing as a whole its parent has spoken already.
        let found = self.table?.iter().find(|(name, _)| name.get_ref() == key.name);
        if found.is_none() && matches!(key.absent, Absent::Refused) {
            self.report_absent(key, problems);
        }
        found.map(|(_, value)| (value.get_ref(), self.source.place(value.span())))
    }

    fn report_absent(&self, key: &Key, problems: &mut Problems) {
        let name = key.name;
        match key.value {
            Value::Section(shape) => {
                let hint = format!("it holds {}", quoted(shape.names()));
                problems.add_with_hint(&self.place, format!("section `[{name}]` is missing"), hint);
            }
            Value::Sections(_) => {
                problems.add(&self.place, format!("there must be at least one `[[{name}]]`"))
            }
            Value::Number { min, max, .. } => {
                problems.add_with_hint(&self.place, self.missing(name), format!("it takes {min}..={max}"));
            }
            Value::Text { form } => {
                problems.add_with_hint(&self.place, self.missing(name), format!("it takes {form}"));
            }
            Value::Choice(words) => {
                let hint = format!("it is one of {}", quoted(words.iter().copied()));
                problems.add_with_hint(&self.place, self.missing(name), hint);
            }
        }
    }

    fn missing(&self, name: &str) -> String {
        match self.name {
            "" => format!("`{name}` is missing"),
            section => format!("`{name}` is missing in section `{section}`"),
        }
    }

    fn key(&self, name: &str) -> &'static Key {
        self.shape.key(name).expect("every key that is read stands in the table of keys")
    }
}

fn unknown_key_hint(name: &str, file: &'static Shape, shape: &'static Shape) -> String {
    // A key of another section is the commonest slip: TOML puts whatever follows a header below it.
    if file.key(name).is_some() {
        return format!("`{name}` stands at the top of the file, before the first section");
    }
    if let Some((section, _)) = file.sections().find(|(_, other)| other.key(name).is_some()) {
        return format!("`{name}` belongs into section `{section}`");
    }
    let valid = || format!("valid here: {}", quoted(shape.names()));
    nearest(name, shape.names()).map_or_else(valid, did_you_mean)
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
