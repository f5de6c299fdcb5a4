//! Keys whose value says of each op how often it counts: op k of a key adds 4^k, so digit k of the value in base 4 is
//! 0 where it counts never, and 1, 2 or 3 where it counts so often.
//!
//! Sends and judges nothing: see [`crate::ledger`] and [`crate::fates`].

/// Ops of one key: even if each counted three times, their sum would be within i64.
pub const OPS_PER_KEY: usize = 31;

/// The key of a client's op.
#[must_use]
pub fn key(client: &str, op: usize) -> String {
    format!("fate:{client}:{}", op / OPS_PER_KEY)
}

/// What an op adds to its key.
#[must_use]
pub const fn delta(op: usize) -> i64 {
    1 << (2 * (op % OPS_PER_KEY))
}

/// How often an op counts in the value of its key.
#[must_use]
pub const fn digit(value: i128, op: usize) -> u8 {
    (value >> (2 * (op % OPS_PER_KEY)) & 3) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_say_how_often_each_op_counts() {
        let counted = [0_u8, 1, 2, 3, 1];
        for first in [0, OPS_PER_KEY - counted.len(), OPS_PER_KEY] {
            let ops = first..first + counted.len();
            let sum =
                ops.clone().zip(counted).map(|(op, times)| i128::from(times) * i128::from(delta(op))).sum();
            assert_eq!(ops.map(|op| digit(sum, op)).collect::<Vec<_>>(), counted);
        }
        let most = (0..OPS_PER_KEY).map(|op| i128::from(delta(op)) * 3).sum::<i128>();
        assert!(most <= i128::from(i64::MAX));
    }
}
