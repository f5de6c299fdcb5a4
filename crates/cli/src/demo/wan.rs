//! The demo's map: which regions there are and how far apart they lie. Holds numbers; delays nothing itself.

use std::time::Duration;

use tombolo_testbed::cluster::ClusterOptions;
use tombolo_testbed::relay::LinkConditions;

/// The regions, in the order in which they join.
pub(super) const NAMES: [&str; 6] = ["eu-west", "us-east", "ap-south", "us-west", "sa-east", "ap-northeast"];

/// One-way delays in milliseconds; row and column are places in [`NAMES`].
#[rustfmt::skip]
const ONE_WAY_MS: [[u64; 6]; 6] = [
    [  0,  40,  60,  70,  92, 105],
    [ 40,   0,  75,  32,  57,  80],
    [ 60,  75,   0, 110, 150,  60],
    [ 70,  32, 110,   0,  87,  52],
    [ 92,  57, 150,  87,   0, 130],
    [105,  80,  60,  52, 130,   0],
];

/// A path between two regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Path {
    /// One end.
    pub(super) a: &'static str,
    /// The other.
    pub(super) b: &'static str,
    /// From one to the other; the way back takes as long.
    pub(super) one_way_ms: u64,
}

/// All paths among the first `count` regions, each once.
pub(super) fn paths(count: usize) -> Vec<Path> {
    let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
    pairs.map(|(a, b)| Path { a: NAMES[a], b: NAMES[b], one_way_ms: ONE_WAY_MS[a][b] }).collect()
}

/// Regions with a relay whose links are as long as the map says before any of them connects.
pub(super) fn laid(options: ClusterOptions, count: usize) -> ClusterOptions {
    paths(count).iter().fold(options, |options, path| {
        options.with_path(path.a, path.b, LinkConditions::delayed(Duration::from_millis(path.one_way_ms)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_there_once_and_as_long_as_its_way_back() {
        let paths = paths(NAMES.len());
        assert_eq!(paths.len(), 15);
        assert!(paths.iter().all(|path| path.one_way_ms > 0 && path.a != path.b));
        for (a, row) in ONE_WAY_MS.iter().enumerate() {
            assert!((0..NAMES.len()).all(|b| row[b] == ONE_WAY_MS[b][a]));
        }
    }
}
