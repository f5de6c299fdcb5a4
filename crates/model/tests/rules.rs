//! The rules hold in every scenario; each rule broken on purpose is caught in the scenario that shows why it exists.
//!
//! A bad rule and the good ones are searched with the same bound, so that a scenario which could not tell is noticed.

#![allow(clippy::print_stdout, reason = "what was searched is part of the result")]

use std::time::{Duration, Instant};

use tombolo_model::explore::{Outcome, explore};
use tombolo_model::scenario::Scenario;
use tombolo_model::scenarios::*;
use tombolo_model::variant::{Rules, Variant};
use tombolo_model::walks::walk;

fn report(what: &str, outcome: &Outcome) {
    let end = if outcome.is_exhaustive { ", all there are" } else { "" };
    println!("{what}: {} states or walks{end}, {} steps", outcome.states, outcome.steps);
}

fn assert_holds(scenario: &Scenario, outcome: &Outcome, how: &str) {
    report(&format!("[{how}] {}", scenario.name), outcome);
    assert!(outcome.found.is_none(), "{}, by {how}:\n{}", scenario.name, outcome.story());
}

/// The search must find the bad rule within the bound, and nothing wrong with the good ones.
fn assert_caught(variant: Variant, scenario: &Scenario, states_max: usize) {
    let good = explore(scenario, Rules::GOOD, states_max, 1);
    assert_holds(scenario, &good, "search, twin");
    let bad = explore(scenario, Rules::GOOD.without(variant), states_max, 1);
    report(&format!("[search, {variant:?}] {}", scenario.name), &bad);
    println!("{}\n", bad.story());
    assert!(bad.found.is_some(), "{variant:?} went unnoticed in {} states of: {}", bad.states, scenario.name);
}

macro_rules! caught {
    ($($name:ident: $variant:ident in $scenario:ident within $states_max:literal;)*) => {
        $(#[test] fn $name() { assert_caught(Variant::$variant, &$scenario, $states_max); })*
    };
}

caught! {
    a_region_that_asks_some_members_is_not_whole: WholeAsksSomeMembers in ROLLBACK within 3_000;
    a_region_that_asks_nobody_is_not_whole: WholeAsksNobody in ROLLBACK within 2_000;
    the_mark_passes_only_what_the_authority_answered: MarkMovesOnAnyAnswer in MARKS within 500;
    what_lies_below_the_mark_is_covered: CoveredIsOnlyTheSet in MARKS within 500;
    the_longer_prefix_wins_and_not_the_greater_slot: PerSlotMaximum in REMOVAL within 500;
    tables_outlive_expiry: ExpireDropsTablesAtOnce in EXPIRY within 500;
    late_conditionals_outlive_expiry: ExpireDropsLateConditionals in EXPIRY within 500;
    copies_of_a_conditional_count_once: ConditionalPerRegion in RETRIES within 500;
    a_state_comes_with_its_vector: InstallWithoutVector in MARKS_MERGED within 500;
    a_state_comes_with_its_sessions: InstallWithoutSessions in MARKS_MERGED within 500;
    any_member_ships_any_log: NobodyRelays in ROLLBACK within 1_000;
    an_heir_asks_after_the_removal: StaleHeirAnswers in REMOVAL_CRASH within 2_500;
    a_removal_voids_answers_given_before: RemovalKeepsAnswers in REMOVAL_CRASH within 1_800;
    later_epochs_move_no_marks: LaterEpochMovesMark in MARKS_ROLLBACK within 150_000;
    a_member_that_was_restarted_voids_the_answers_of_others: RestartKeepsOtherAnswers in TWO_OLD_DISKS within 20_000;
    a_hello_ends_the_connections_of_earlier_epochs: OldFramesTaken in LATE_FRAME within 5_000;
    a_hello_names_the_epochs_that_are_known: HelloNamesNoEpochs in LATE_FRAME_OF_ANOTHER within 200_000;
    what_is_missing_is_deleted_with_its_dot: AbsentMeansUnknown in TOMBSTONE_OLD_DISK within 10_000;
    conditionals_count_under_the_greatest_generation: WinnerBeforeGeneration in RETRIES within 5_000;
    what_can_be_written_again_has_a_window: NoWindow in TOMBSTONE_REMOVAL within 60_000;
    what_is_missing_is_not_deleted_without_its_dot: AbsentMeansDeleted in TOMBSTONE within 500;
    copies_of_a_register_write_have_one_stamp: StampPerCopy in REGISTER within 500;
    stamps_that_tie_are_told_apart: StampTieUnbroken in REGISTER_TIES within 500;
    a_removed_region_has_an_heir: RemovalWithoutHeir in REMOVAL within 500;
    absorbing_keeps_the_generation: AbsorbUnderOwnGeneration in RETRIES within 500;
    a_deleted_counter_keeps_its_generation: CounterTombstoneDropped in DELETED_GARBAGE within 8_800;
    what_can_be_sent_again_has_a_window: NoWindow in EXPIRY_ROLLBACK within 90_000;
    acks_count_once_the_window_has_passed: EarlyAcksCount in TOMBSTONE_REMOVAL within 60_000;
    what_stable_covers_is_old_also_in_sealed_logs: AgeEndsAtSeals in YOUNG_TOMBSTONE within 20_000;
    stable_waits_for_the_heir: StableBeforeRemovedSealed in TOMBSTONE_REMOVAL within 100_000;
    adds_that_had_not_seen_a_delete_go_with_it: AddsIgnoreGenerations in RETRIES within 500;
    a_restart_opens_a_new_epoch: ReuseEpoch in ROLLBACK_ADDS within 2_500;
    conditionals_are_absorbed: NeverAbsorbs in RETRIES within 500;
    absorbing_knows_no_window: WindowStopsAbsorbing in EXPIRY within 500;
    a_region_that_is_not_whole_logs_conditionals_for_its_older_sessions: NotWholeHasAuthority in ROLLBACK within 1_000;
    conditionals_raise_the_generation: ConditionalDoesNotRaise in RETRIES within 2_000;
    a_seal_waits_for_the_end: SealBeforeEnd in ROLLBACK within 3_000;
    stable_waits_for_the_members_own_logs: StableIgnoresU in EXPIRY within 5_000;
    stable_comes_after_absorbing: StableBeforeAbsorbing in EXPIRY within 5_000;
    acks_of_regions_that_are_not_whole_do_not_count: AckOfNotWholeRegion in EXPIRY_ROLLBACK within 90_000;
}

/// What is broken here breaks nothing else in the model. If one of these is found wrong, it belongs to the above.
#[test]
fn rules_that_the_model_does_not_need() {
    let all = [EXPIRY_ROLLBACK, TOMBSTONE_OLD_DISK, TWO_DELETES, RETRIES_MERGED];
    for variant in [Variant::AckOutlivesEpoch, Variant::RetryIgnoresConditional] {
        for scenario in &all {
            let outcome = explore(scenario, Rules::GOOD.without(variant), 100_000, 1);
            assert_holds(scenario, &outcome, &format!("search, {variant:?}"));
        }
    }
}

#[test]
fn the_rules_hold_in_small_scenarios() {
    for scenario in SMALL {
        assert_holds(scenario, &explore(scenario, Rules::GOOD, 60_000, 1), "search");
    }
}

#[test]
fn the_rules_hold_in_large_mixes() {
    for scenario in WIDE {
        assert_holds(scenario, &explore(scenario, Rules::GOOD, 50_000, 1), "search");
        assert_holds(scenario, &walk(scenario, Rules::GOOD, 1, 5_000), "walks");
    }
}

/// Seconds for each large mix, from `TOMBOLO_MODEL_SECONDS`; 0 without it.
#[expect(clippy::disallowed_methods, reason = "a test may be told how long to look")]
fn seconds() -> u64 {
    std::env::var("TOMBOLO_MODEL_SECONDS").map_or(0, |text| text.parse().expect("a number of seconds"))
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long to look is a time; what is found does not depend on it"
)]
fn the_rules_hold_for_as_long_as_one_looks() {
    let share = Duration::from_secs(seconds());
    for scenario in WIDE {
        let begun = Instant::now();
        if share.is_zero() {
            break;
        }
        // About half of the time goes to the search; states beyond the bound would not fit in memory.
        let states_max = (share.as_secs() as usize * 100_000).min(4_000_000);
        assert_holds(scenario, &explore(scenario, Rules::GOOD, states_max, 1), "search");
        for seed in 2.. {
            let outcome = walk(scenario, Rules::GOOD, seed, 100_000);
            assert_holds(scenario, &outcome, &format!("walks, seed {seed}"));
            if begun.elapsed() > share {
                break;
            }
        }
    }
}
