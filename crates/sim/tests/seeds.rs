//! Seeds: a small sweep, the same seed twice, and lies that must be noticed.

use tombolo_sim::{Rare, RareCounts, Sabotage, Settings, run};

#[test]
fn whatever_fails_regions_agree_and_every_acked_op_counts_once() {
    let settings = Settings { seconds: 30, ..Settings::default() };
    let mut rare = RareCounts::default();
    for seed in 1..=40 {
        let summary = run(seed, settings).unwrap_or_else(|why| {
            panic!(
                "seed {seed} {why}\ncargo run -p tombolo-sim --release -- replay --seed {seed} --seconds 30"
            )
        });
        rare.join(&summary.rare);
    }
    for needed in
        [Rare::TornTailCut, Rare::RollbackHealed, Rare::QuarantineRepaired, Rare::KilledAfterBarrier]
    {
        assert!(rare.of(needed) > 0, "{} was never met", needed.name());
    }
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let settings = Settings { seconds: 15, ..Settings::default() };
    for seed in [3, 8, 21] {
        let first = run(seed, settings).unwrap();
        assert!(first.ops_count > 200, "{first:?}");
        assert_eq!(first, run(seed, settings).unwrap());
        assert_ne!(first.hash, run(seed + 1, settings).unwrap().hash);
    }
}

/// Runs seeds until one fails; the failure must be one of those that the lie should cause.
fn assert_caught(sabotage: Sabotage, seeds: u64, by: &[&str]) {
    let settings = Settings { seconds: 30, sabotage, ..Settings::default() };
    // A broken rule may also end in an assertion: there the process dies, here the seed is caught by its text.
    let outcome = |seed| {
        let text = |panic: Box<dyn std::any::Any + Send>| {
            Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
        };
        std::panic::catch_unwind(|| run(seed, settings).err()).unwrap_or_else(text)
    };
    let found = (1..=seeds).find_map(outcome);
    let why = found.unwrap_or_else(|| panic!("{sabotage:?} went unnoticed in {seeds} seeds"));
    assert!(by.iter().any(|id| why.contains(id)), "{sabotage:?} was noticed by something else: {why}");
}

#[test]
fn sabotage_a_disk_that_ignores_syncs_is_caught() {
    assert_caught(Sabotage::IgnoredSyncs, 20, &["W1: ", "W3: ", "C1: ", "does not start"]);
}

#[test]
fn sabotage_a_follower_with_other_bytes_is_caught() {
    assert_caught(Sabotage::AlteredBatches, 20, &["C2: "]);
}

#[test]
fn sabotage_an_ack_before_the_sync_is_caught() {
    assert_caught(Sabotage::EarlyAcks, 20, &["R3: "]);
}

#[test]
fn sabotage_a_hello_answered_too_low_is_caught() {
    assert_caught(Sabotage::LowAnswers, 40, &["R8: "]);
}

#[test]
fn sabotage_a_failed_sync_that_is_hidden_is_caught() {
    assert_caught(Sabotage::FailedSyncsHidden, 40, &["W5: ", "W1: ", "W3: ", "C1: "]);
}

#[test]
fn sabotage_rot_of_the_only_copy_is_caught() {
    assert_caught(Sabotage::RotOfTheOnlyCopy, 60, &["W1", "W3: DATA_LOSS", "R8: "]);
}
