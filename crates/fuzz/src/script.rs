//! [`Script`]: which real bytes to start from, and how to spoil them.

/// One change. Places are taken modulo the length, so that every value means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Flips one bit.
    Flip(u16, u8),
    /// Sets one byte.
    Set(u16, u8),
    /// Cuts everything off from here.
    Truncate(u16),
    /// Repeats a stretch behind itself.
    Repeat(u16, u8),
    /// Takes a stretch out.
    Remove(u16, u8),
    /// Puts a stretch of another seed in here.
    Splice(u16, u16, u8),
    /// Copies a stretch over another place.
    Copy(u16, u16, u8),
    /// Writes a little-endian number of 2, 4 or 8 bytes that looks like a length.
    Length(u16, Width, Number),
    /// Writes a length in digits, as text protocols do.
    Digits(u16, Number),
    /// Moves a 4-byte number by a little.
    Nudge(u16, i8),
    /// Lets the relative pointer at the first place point at what the one at the second does.
    Alias(u16, u16),
}

/// Bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 2.
    Two,
    /// 4.
    Four,
    /// 8.
    Eight,
}

/// Numbers at which lengths go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// 0.
    Zero,
    /// All ones: also -1.
    Max,
    /// The greatest that is positive with a sign.
    SignedMax(u8),
    /// A power of two.
    Power(u8),
    /// About the length of what is there.
    About(i8),
}

/// Bytes that are nearly real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The seed to start from.
    pub seed: usize,
    /// The changes, in order.
    pub edits: Vec<Edit>,
    /// At least 1: the length of the pieces in which a stream arrives.
    pub step: usize,
}

/// Most edits of one script: a few reach states that one alone does not, many only make noise.
const EDITS_MAX: u64 = 5;

impl Script {
    /// The script of this number, for so many seeds.
    #[must_use]
    pub fn draw(number: u64, seeds_count: usize) -> Self {
        let mut chance = Chance(number);
        let edits_count = 1 + chance.below(EDITS_MAX);
        Self {
            seed: chance.below(seeds_count as u64) as usize,
            edits: (0..edits_count).map(|_| Edit::draw(&mut chance)).collect(),
            step: 1 + chance.below(200) as usize,
        }
    }

    /// The bytes this script makes of the seeds.
    ///
    /// Panics: if there is no seed.
    #[must_use]
    pub fn apply(&self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let seed = |nth: usize| &seeds[nth % seeds.len()];
        let mut bytes = seed(self.seed).clone();
        for (nth, edit) in self.edits.iter().enumerate() {
            edit.apply(&mut bytes, seed(self.seed + nth + 1));
        }
        bytes
    }
}

/// Source: Steele, Lea and Flood, SplitMix64.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }
}

impl Edit {
    fn draw(chance: &mut Chance) -> Self {
        let (at, other, small) = (chance.bits() as u16, chance.bits() as u16, chance.bits() as u8);
        match chance.below(11) {
            0 => Self::Flip(at, small),
            1 => Self::Set(at, small),
            2 => Self::Truncate(at),
            3 => Self::Repeat(at, small),
            4 => Self::Remove(at, small),
            5 => Self::Splice(at, other, small),
            6 => Self::Copy(at, other, small),
            7 => Self::Length(at, Width::draw(chance), Number::draw(chance)),
            8 => Self::Digits(at, Number::draw(chance)),
            9 => Self::Nudge(at, small as i8),
            _ => Self::Alias(at, other),
        }
    }

    fn apply(self, bytes: &mut Vec<u8>, other: &[u8]) {
        let len = bytes.len();
        let place = |at: u16| usize::from(at) % (len + 1);
        let stretch = |at: u16, count: u8| place(at)..(place(at) + usize::from(count)).min(len);
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(place(at)) {
                    *byte ^= 1 << (bit % 8)
                }
            }
            Self::Set(at, to) => {
                if let Some(byte) = bytes.get_mut(place(at)) {
                    *byte = to
                }
            }
            Self::Truncate(at) => bytes.truncate(place(at)),
            Self::Repeat(at, count) => {
                let copy = bytes[stretch(at, count)].to_vec();
                bytes.splice(place(at)..place(at), copy);
            }
            Self::Remove(at, count) => drop(bytes.drain(stretch(at, count))),
            Self::Splice(at, from, count) => {
                let from = usize::from(from) % (other.len() + 1);
                let to = (from + usize::from(count)).min(other.len());
                bytes.splice(place(at)..place(at), other[from..to].iter().copied());
            }
            Self::Copy(from, to, count) => {
                let copy = bytes[stretch(from, count)].to_vec();
                overwrite(bytes, place(to), &copy);
            }
            Self::Length(at, width, number) => {
                let number = number.value(len).to_le_bytes();
                overwrite(bytes, place(at), &number[..width.bytes()]);
            }
            Self::Digits(at, number) => {
                overwrite(bytes, place(at), number.value(len).cast_signed().to_string().as_bytes());
            }
            Self::Nudge(at, by) => {
                if let Some(number) = bytes.get_mut(place(at)..).and_then(|rest| rest.first_chunk_mut()) {
                    *number = i32::from_le_bytes(*number).wrapping_add(by.into()).to_le_bytes();
                }
            }
            Self::Alias(from, to) => alias(bytes, place(from), place(to)),
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..].iter_mut().zip(with).for_each(|(byte, with)| *byte = *with);
}

/// A relative pointer and the length behind it, written elsewhere so that both mean the same bytes.
fn alias(bytes: &mut [u8], to: usize, from: usize) {
    let Some(&[a, b, c, d, length @ ..]) = bytes[from..].first_chunk::<8>() else { return };
    let target = i64::from(i32::from_le_bytes([a, b, c, d])) + from as i64;
    let Ok(offset) = i32::try_from(target - to as i64) else { return };
    overwrite(bytes, to, &offset.to_le_bytes());
    let behind = (to + 4).min(bytes.len());
    overwrite(bytes, behind, &length);
}

impl Width {
    fn draw(chance: &mut Chance) -> Self {
        [Self::Two, Self::Four, Self::Eight][chance.below(3) as usize]
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

impl Number {
    fn draw(chance: &mut Chance) -> Self {
        let small = chance.bits() as u8;
        let about = Self::About((small % 24) as i8 - 12);
        [Self::Zero, Self::Max, Self::SignedMax(small), Self::Power(small), about][chance.below(5) as usize]
    }

    fn value(self, len: usize) -> u64 {
        match self {
            Self::Zero => 0,
            Self::Max => u64::MAX,
            Self::SignedMax(bits) => [0x7fff, 0x7fff_ffff, i64::MAX as u64][usize::from(bits) % 3],
            Self::Power(exponent) => 1 << (exponent % 64),
            Self::About(by) => (len as u64).wrapping_add_signed(by.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edits: &[Edit]) -> Vec<u8> {
        Script { seed: 0, edits: edits.to_vec(), step: 0 }
            .apply(&[b"abcdefgh".to_vec(), b"12345678".to_vec()])
    }

    #[test]
    fn each_edit_does_what_it_says() {
        assert_eq!(edited(&[]), b"abcdefgh");
        assert_eq!(edited(&[Edit::Flip(0, 5)]), b"Abcdefgh");
        assert_eq!(edited(&[Edit::Set(9, b'x')]), b"xbcdefgh");
        assert_eq!(edited(&[Edit::Truncate(3)]), b"abc");
        assert_eq!(edited(&[Edit::Repeat(6, 9)]), b"abcdefghgh");
        assert_eq!(edited(&[Edit::Remove(1, 6)]), b"ah");
        assert_eq!(edited(&[Edit::Splice(1, 6, 9)]), b"a78bcdefgh");
        assert_eq!(edited(&[Edit::Copy(0, 6, 3)]), b"abcdefab");
        assert_eq!(edited(&[Edit::Length(0, Width::Two, Number::About(-8))]), b"\0\0cdefgh");
        assert_eq!(edited(&[Edit::Digits(5, Number::Max)]), b"abcde-1h");
        assert_eq!(edited(&[Edit::Nudge(0, 1)]), b"bbcdefgh");
    }

    #[test]
    fn an_alias_points_where_the_other_pointer_does() {
        let mut bytes = vec![0; 24];
        bytes[8..16].copy_from_slice(&[248, 255, 255, 255, 5, 0, 0, 0]);
        alias(&mut bytes, 16, 8);
        assert_eq!(bytes[16..], [240, 255, 255, 255, 5, 0, 0, 0]);
    }

    #[test]
    fn nothing_is_spoiled_beyond_its_end() {
        for at in [0, 1, 7, 8, u16::MAX] {
            for edit in [Edit::Flip(at, 3), Edit::Repeat(at, 200), Edit::Alias(at, at), Edit::Nudge(at, 9)] {
                let mut none = Vec::new();
                edit.apply(&mut none, &[]);
                assert_eq!(none, b"");
                edited(&[edit]);
            }
        }
    }
}
