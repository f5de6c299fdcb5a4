//! What was reached: the sealed tokens of one or many answers, kept as few as cover them all.
//!
//! It never looks behind the seal for more than which token covers which.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tombolo_causality::ShardId;
use tombolo_codec::{Position, Token as Sealed, TokenError};

/// Texts of a token looked at; a token names each shard in few epochs.
const PARTS_MAX: usize = 4_096;

/// What acknowledged writes have reached: pass it to [`Client::wait`](crate::Client::wait) or
/// [`Client::read`](crate::Client::read), also in another process.
///
/// An answer's token is one sealed text; where several stand side by side their texts are joined by commas. Each text
/// by itself is a token for the other doors.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: Arc<str>,
    positions: Arc<[Position]>,
}

impl Part {
    fn covers(&self, other: &Self) -> bool {
        other
            .positions
            .iter()
            .all(|wanted| self.positions.iter().any(|held| held.log == wanted.log && held.seq >= wanted.seq))
    }
}

impl Token {
    /// Whether it names nothing, as before the first write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The sealed texts it is made of.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| &*part.text)
    }

    /// Takes in all that `other` has reached.
    pub fn join(&mut self, other: &Self) {
        for part in &other.parts {
            self.add(part.clone());
        }
    }

    fn add(&mut self, part: Part) {
        if self.parts.iter().any(|held| held.covers(&part)) {
            return;
        }
        self.parts.retain(|held| !part.covers(held));
        self.parts.push(part);
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The texts that say something about a shard.
    pub(crate) fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(move |part| part.positions.iter().any(|held| held.log.shard == shard))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut token = Self::default();
        for (count, text) in text.split(',').filter(|text| !text.is_empty()).enumerate() {
            if count == PARTS_MAX {
                return Err(TokenError::Malformed);
            }
            let positions = Sealed::peek(text)?.positions.into();
            token.add(Part { text: text.into(), positions });
        }
        Ok(token)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, text) in self.texts().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{text}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().flat_map(|part| &*part.positions)).finish()
    }
}

#[cfg(test)]
mod tests {
    use tombolo_causality::{Epoch, LogId, RegionId, Seq, Time};
    use tombolo_codec::SealKey;

    use super::*;

    fn token(shard: u16, epoch: u128, seq: u64) -> Token {
        let log = LogId { shard: ShardId(shard), region: RegionId::new(1).unwrap(), epoch: Epoch(epoch) };
        let sealed = Sealed { positions: vec![Position { log, seq: Seq(seq) }], time: Time(seq) };
        sealed.encode(&SealKey::new([1; 32])).parse().unwrap()
    }

    #[test]
    fn a_later_token_of_the_same_log_stands_for_the_earlier_one_whatever_the_order() {
        for order in [[1, 2], [2, 1]] {
            let mut joined = Token::default();
            assert!(joined.is_empty());
            order.iter().for_each(|&seq| joined.join(&token(3, 7, seq)));
            assert_eq!(joined, token(3, 7, 2));
        }
    }

    #[test]
    fn other_logs_stand_beside_and_the_text_parses_back() {
        let mut joined = token(3, 7, 1);
        joined.join(&token(4, 7, 1));
        joined.join(&token(3, 8, 1));
        assert_eq!(joined.texts().count(), 3);
        assert_eq!(joined.of_shard(ShardId(3)).count(), 2);
        assert_eq!(joined.to_string().parse(), Ok(joined));
        assert_eq!("".parse(), Ok(Token::default()));
        assert!("garbage".parse::<Token>().is_err());
    }
}
