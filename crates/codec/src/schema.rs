//! Declared kinds: which keys are counters and which are registers, by pattern.

use crate::op::Kind;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{0}`: only one `*`, at the end, is allowed")]
pub struct SchemaError(pub String);

/// The `match` patterns of cluster.toml, first match wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    rules: Vec<(Vec<u8>, bool, Kind)>,
}

impl Schema {
    /// From patterns such as `views:*`.
    ///
    /// Errors: [`SchemaError`] for a star elsewhere than at the end.
    pub fn new<'a>(rules: impl IntoIterator<Item = (&'a str, Kind)>) -> Result<Self, SchemaError> {
        let mut schema = Self::default();
        for (pattern, kind) in rules {
            let (stem, is_prefix) = match pattern.strip_suffix('*') {
                Some(stem) => (stem, true),
                None => (pattern, false),
            };
            if stem.contains('*') {
                return Err(SchemaError(pattern.to_owned()));
            }
            schema.rules.push((stem.as_bytes().to_vec(), is_prefix, kind));
        }
        Ok(schema)
    }

    /// The declared kind of a key, if any pattern matches.
    #[must_use]
    pub fn kind_of(&self, key: &[u8]) -> Option<Kind> {
        self.rules
            .iter()
            .find(
                |(stem, is_prefix, _)| {
                    if *is_prefix { key.starts_with(stem) } else { key == stem.as_slice() }
                },
            )
            .map(|&(_, _, kind)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_pattern_declares_the_kind() {
        let schema =
            Schema::new([("views:*", Kind::Counter), ("views:last", Kind::Register), ("x", Kind::Register)])
                .unwrap();
        assert_eq!(schema.kind_of(b"views:last"), Some(Kind::Counter));
        assert_eq!(schema.kind_of(b"x"), Some(Kind::Register));
        assert_eq!(schema.kind_of(b"xy"), None);
        assert!(Schema::new([("a*b", Kind::Counter)]).is_err());
    }
}
