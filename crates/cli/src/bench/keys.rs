//! The keys of a load and the order in which they are drawn: made ahead, so that drawing one costs next to nothing.

use clap::ValueEnum;

/// How often each key is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// All alike.
    Uniform,
    /// The k-th key in proportion to k^-0.99, as popular things are.
    Zipf,
}

impl Distribution {
    /// As it stands on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }
}

/// `bench:0`, `bench:1`, …, in one piece of memory.
#[derive(Debug)]
pub(crate) struct Keys {
    text: String,
    /// Where each key ends; it begins where the one before ends.
    ends: Vec<u32>,
}

/// Most keys: their text stays within what an end can name.
pub(crate) const KEYS_MAX: u32 = 50_000_000;

impl Keys {
    /// Makes `count` keys, at most [`KEYS_MAX`].
    pub(crate) fn new(count: u32) -> Self {
        use std::fmt::Write as _;
        assert!((1..=KEYS_MAX).contains(&count), "{count} keys");
        let mut text = String::with_capacity(count as usize * "bench:0000000".len());
        let mut ends = Vec::with_capacity(count as usize);
        for number in 0..count {
            write!(text, "bench:{number}").expect("writing into a string cannot fail");
            ends.push(u32::try_from(text.len()).expect("KEYS_MAX keys are shorter than 4 GiB"));
        }
        Self { text, ends }
    }

    /// The key at a place.
    pub(crate) fn at(&self, place: u32) -> &str {
        let place = place as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] as usize };
        &self.text[start..self.ends[place] as usize]
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// All of them, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        (0..self.count()).map(|place| self.at(place))
    }
}

/// Random numbers that cost about a nanosecond.
///
/// Source: Steele, Lea and Flood, SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u32
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws places of keys.
#[derive(Debug)]
pub(crate) enum Draw {
    Uniform { chance: Chance, count: u32 },
    Drawn { places: Vec<u32>, next: usize },
}

/// Places drawn ahead; then they repeat.
const DRAWN_COUNT: usize = 1 << 20;

impl Draw {
    /// Draws among `count` keys; the same seed draws the same places.
    pub(crate) fn new(distribution: Distribution, count: u32, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        match distribution {
            Distribution::Uniform => Self::Uniform { chance, count },
            Distribution::Zipf => {
                let zipf = Zipf::new(count);
                Self::Drawn { places: (0..DRAWN_COUNT).map(|_| zipf.draw(&mut chance)).collect(), next: 0 }
            }
        }
    }

    /// The next place.
    pub(crate) fn next(&mut self) -> u32 {
        match self {
            Self::Uniform { chance, count } => chance.below(*count),
            Self::Drawn { places, next } => {
                let place = places[*next];
                *next = (*next + 1) % places.len();
                place
            }
        }
    }
}

/// Zipf's law with exponent 0.99, by rejection and inversion.
///
/// Source: Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions" (1996).
struct Zipf {
    count: f64,
    area_first: f64,
    area_all: f64,
    shortcut: f64,
}

const EXPONENT: f64 = 0.99;

impl Zipf {
    fn new(count: u32) -> Self {
        let count = f64::from(count);
        Self {
            count,
            area_first: area(1.5) - 1.0,
            area_all: area(count + 0.5),
            shortcut: 2.0 - inverse_area(area(2.5) - 2_f64.powf(-EXPONENT)),
        }
    }

    fn draw(&self, chance: &mut Chance) -> u32 {
        loop {
            let u = self.area_all + chance.unit() * (self.area_first - self.area_all);
            let x = inverse_area(u);
            let k = x.round().clamp(1.0, self.count);
            if k - x <= self.shortcut || u >= area(k + 0.5) - k.powf(-EXPONENT) {
                return k as u32 - 1;
            }
        }
    }
}

/// The integral of x^-EXPONENT.
fn area(x: f64) -> f64 {
    x.powf(1.0 - EXPONENT) / (1.0 - EXPONENT)
}

fn inverse_area(area: f64) -> f64 {
    (area * (1.0 - EXPONENT)).powf(1.0 / (1.0 - EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_without_gaps() {
        let keys = Keys::new(1_001);
        assert_eq!(
            (keys.at(0), keys.at(9), keys.at(10), keys.at(1_000)),
            ("bench:0", "bench:9", "bench:10", "bench:1000")
        );
        assert_eq!((keys.count(), keys.all().count()), (1_001, 1_001));
    }

    #[test]
    fn uniform_draws_meet_every_key_about_as_often() {
        let mut draw = Draw::new(Distribution::Uniform, 10, 7);
        let mut counts = [0_u32; 10];
        (0..100_000).for_each(|_| counts[draw.next() as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipf_draws_follow_the_law() {
        let count = 1_000;
        let mut draw = Draw::new(Distribution::Zipf, count, 7);
        let mut counts = vec![0_u32; count as usize];
        (0..DRAWN_COUNT).for_each(|_| counts[draw.next() as usize] += 1);
        let total: f64 = (1..=count).map(|k| f64::from(k).powf(-EXPONENT)).sum();
        for k in [1_u32, 2, 3, 10, 100] {
            let expected = f64::from(k).powf(-EXPONENT) / total * DRAWN_COUNT as f64;
            let found = f64::from(counts[k as usize - 1]);
            // Five standard deviations of a draw that is either this key or not.
            assert!(
                (found - expected).abs() < 5.0 * expected.sqrt(),
                "key {k}: {found} drawn, {expected} expected"
            );
        }
    }

    #[test]
    fn one_key_is_drawn_always() {
        for distribution in [Distribution::Uniform, Distribution::Zipf] {
            let mut draw = Draw::new(distribution, 1, 7);
            assert!((0..1_000).all(|_| draw.next() == 0));
        }
    }
}
