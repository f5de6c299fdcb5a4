//! Chance that repeats: the same seed draws the same numbers.

/// A source of numbers (xorshift64*).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From a seed, 0 included.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below a bound, which is not 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.draw() >> 32) as usize) % bound
    }

    /// Whether one of a hundred equal chances, so many of which count, fell so.
    pub const fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
