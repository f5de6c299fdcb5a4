//! Tokens and session ids as clients hold them: opaque text, sealed so that only this cluster can make them.
//!
//! Layout before base64url: one version byte, the fields little endian, 16 bytes of keyed blake3 over all before.

use data_encoding::BASE64URL_NOPAD;
use tombolo_causality::{Epoch, LogId, RegionId, Seq, SessionId, ShardId, Time};

use crate::peer::Position;

const TOKEN_VERSION: u8 = 1;
const SESSION_VERSION: u8 = 0x81;
const MAC_BYTES: usize = 16;
const POSITION_BYTES: usize = 10;
/// The longest text that is looked at: a position in each of 1,024 shards, with room for logs of older epochs.
const TEXT_BYTES_MAX: usize = 96 * 1_024;

/// The cluster's secret for tokens and session ids.
#[derive(Clone)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// From 32 random bytes.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn seal(&self, mut bytes: Vec<u8>) -> String {
        let mac = blake3::keyed_hash(&self.0, &bytes);
        bytes.extend_from_slice(&mac.as_bytes()[..MAC_BYTES]);
        BASE64URL_NOPAD.encode(&bytes)
    }

    fn open(&self, text: &str, version: u8) -> Result<Vec<u8>, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError::Malformed)?;
        if bytes.len() < MAC_BYTES + 1 || bytes[0] != version {
            return Err(TokenError::Malformed);
        }
        let mac = bytes.split_off(bytes.len() - MAC_BYTES);
        let full = blake3::keyed_hash(&self.0, &bytes);
        // blake3::Hash compares in constant time; the half is put back into a whole for that.
        let mut claimed = *full.as_bytes();
        claimed[..MAC_BYTES].copy_from_slice(&mac);
        if full != blake3::Hash::from_bytes(claimed) {
            return Err(TokenError::Foreign);
        }
        Ok(bytes)
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

/// Why a text is not a token or session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the shape of one.
    #[error("not a token: pass it on exactly as an earlier answer gave it")]
    Malformed,
    /// Sealed with another key.
    #[error("this token was made by another cluster, or was altered")]
    Foreign,
}

/// What an acknowledged write returns: the log positions it reached, and the greatest stamp among its writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Token {
    /// One position a shard that was written to.
    pub positions: Vec<Position>,
    /// The hybrid time of its greatest stamp; [`Time::ZERO`] if it fixed none.
    pub time: Time,
}

impl Token {
    /// As opaque text.
    #[must_use]
    pub fn encode(&self, key: &SealKey) -> String {
        let mut positions = self.positions.clone();
        positions.sort_unstable_by_key(|p| (p.log.region, p.log.epoch, p.log.shard));
        let mut out = vec![TOKEN_VERSION];
        out.extend_from_slice(&self.time.0.to_le_bytes());
        for group in positions.chunk_by(|a, b| (a.log.region, a.log.epoch) == (b.log.region, b.log.epoch)) {
            let log = group[0].log;
            out.extend_from_slice(&log.region.get().to_le_bytes());
            out.extend_from_slice(&log.epoch.0.to_le_bytes());
            let count = u16::try_from(group.len()).expect("a token names each shard once");
            out.extend_from_slice(&count.to_le_bytes());
            for position in group {
                out.extend_from_slice(&position.log.shard.0.to_le_bytes());
                out.extend_from_slice(&position.seq.0.to_le_bytes());
            }
        }
        key.seal(out)
    }

    /// From opaque text.
    ///
    /// Errors: [`TokenError`]; nothing is read before the seal is checked.
    pub fn decode(text: &str, key: &SealKey) -> Result<Self, TokenError> {
        Self::read(&key.open(text, TOKEN_VERSION)?)
    }

    /// What a token says, without the key to check it: so that a client can tell which of its tokens cover others.
    ///
    /// Errors: [`TokenError::Malformed`]. Never rely on it where a region decides something.
    pub fn peek(text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError::Malformed)?;
        if bytes.len() < MAC_BYTES + 1 || bytes[0] != TOKEN_VERSION {
            return Err(TokenError::Malformed);
        }
        bytes.truncate(bytes.len() - MAC_BYTES);
        Self::read(&bytes)
    }

    fn read(bytes: &[u8]) -> Result<Self, TokenError> {
        let mut input = Reader(&bytes[1..]);
        let time = Time(input.u64()?);
        let mut positions = Vec::new();
        while !input.0.is_empty() {
            let region = RegionId::new(input.u16()?).map_err(|_| TokenError::Malformed)?;
            let epoch = Epoch(u128::from_le_bytes(input.take()?));
            let count = usize::from(input.u16()?);
            if input.0.len() < count * POSITION_BYTES {
                return Err(TokenError::Malformed);
            }
            for _ in 0..count {
                let shard = ShardId(input.u16()?);
                let seq = Seq(input.u64()?);
                positions.push(Position { log: LogId { shard, region, epoch }, seq });
            }
        }
        Ok(Self { positions, time })
    }
}

/// A session id as clients hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionToken(pub SessionId);

impl SessionToken {
    /// As opaque text.
    #[must_use]
    pub fn encode(&self, key: &SealKey) -> String {
        let mut out = vec![SESSION_VERSION];
        out.extend_from_slice(&self.0.home.get().to_le_bytes());
        out.extend_from_slice(&self.0.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.0.opened.0.to_le_bytes());
        out.extend_from_slice(&self.0.random.to_le_bytes());
        key.seal(out)
    }

    /// From opaque text.
    ///
    /// Errors: [`TokenError`].
    pub fn decode(text: &str, key: &SealKey) -> Result<Self, TokenError> {
        let bytes = key.open(text, SESSION_VERSION)?;
        let mut input = Reader(&bytes[1..]);
        let home = RegionId::new(input.u16()?).map_err(|_| TokenError::Malformed)?;
        let epoch = Epoch(u128::from_le_bytes(input.take()?));
        let opened = Time(input.u64()?);
        let random = input.u64()?;
        if !input.0.is_empty() {
            return Err(TokenError::Malformed);
        }
        Ok(Self(SessionId { home, epoch, opened, random }))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(TokenError::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, TokenError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, TokenError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        let log = |shard, epoch| LogId {
            shard: ShardId(shard),
            region: RegionId::new(2).unwrap(),
            epoch: Epoch(epoch),
        };
        Token {
            positions: vec![
                Position { log: log(0, 7), seq: Seq(1) },
                Position { log: log(9, 7), seq: Seq(u64::MAX) },
                Position { log: log(3, 8), seq: Seq(2) },
            ],
            time: Time(77),
        }
    }

    #[test]
    fn a_token_decodes_to_what_it_was() {
        let key = SealKey::new([3; 32]);
        assert_eq!(Token::decode(&token().encode(&key), &key), Ok(token()));
        assert_eq!(Token::peek(&token().encode(&key)), Ok(token()));
    }

    #[test]
    fn an_altered_or_foreign_token_is_refused() {
        let key = SealKey::new([3; 32]);
        let text = token().encode(&key);
        assert_eq!(Token::decode(&text, &SealKey::new([4; 32])), Err(TokenError::Foreign));
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert!(Token::decode(std::str::from_utf8(&altered).unwrap(), &key).is_err(), "at {at}");
        }
        assert!(Token::decode(&text[..text.len() / 2], &key).is_err());
        assert!(Token::decode("", &key).is_err());
    }

    #[test]
    fn a_session_id_is_not_a_token() {
        let key = SealKey::new([3; 32]);
        let id = SessionId { home: RegionId::new(1).unwrap(), epoch: Epoch(5), opened: Time(6), random: 7 };
        let text = SessionToken(id).encode(&key);
        assert_eq!(SessionToken::decode(&text, &key), Ok(SessionToken(id)));
        assert!(Token::decode(&text, &key).is_err());
        assert!(Token::peek(&text).is_err());
        assert!(SessionToken::decode(&token().encode(&key), &key).is_err());
    }
}
