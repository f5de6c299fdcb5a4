//! One region restarted again and again, with a write in each life: every write counts, and no trace of earlier lives is
//! left in the vectors.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use serde_json::json;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::caller::{Caller, Said};
use tombolo_tests::tell;

const RESTARTS: usize = 15;
const VICTIM: &str = "us";

fn add(caller: &Caller, at: usize) {
    let said = caller.write(at, &json!({"ops": [{"op": "add", "key": "lives", "delta": "1"}]}), None);
    assert!(matches!(said, Said::Yes { .. }), "{}: {said}", REGIONS[at]);
}

fn await_one_log_each(bed: &Bed) -> std::time::Duration {
    bed.until("earlier logs are sealed", 20, |bed| REGIONS.iter().find_map(|region| bed.unsealed(region)))
}

#[test]
fn after_many_restarts_each_shard_has_one_log_a_region_and_every_write_counts() {
    let mut bed = Bed::start();
    let caller = Caller::of(&bed);
    let at = REGIONS.iter().position(|region| *region == VICTIM).unwrap();
    for life in 0..RESTARTS {
        add(&caller, at);
        // Half of them the hard way, and not all of them once whole.
        if life % 2 == 0 {
            bed.cluster.kill9(VICTIM).unwrap();
        } else {
            let ended = bed.cluster.terminate(VICTIM, std::time::Duration::from_secs(15)).unwrap();
            assert!(ended.success(), "life {life} ended with {ended}");
        }
        bed.spawn_all();
    }
    add(&caller, at);
    bed.until("every region is whole", 20, Bed::not_whole);
    let sealed = await_one_log_each(&bed);
    bed.await_equal_digests();
    let total = (RESTARTS + 1).to_string();
    for (at, region) in REGIONS.iter().enumerate() {
        let values = caller.read(at, &["lives".to_owned()]).unwrap();
        assert_eq!(values["lives"].as_ref(), Some(&total), "{region}");
    }
    tell(&format!("{RESTARTS} restarts: one log a region {} ms after all were whole", sealed.as_millis()));

    // The same look goes red where earlier logs cannot be sealed: as long as one region has not answered.
    bed.cluster.kill9("ap").unwrap();
    add(&caller, at);
    bed.cluster.restart(VICTIM).unwrap();
    add(&caller, at);
    let red = bed.unsealed(VICTIM);
    assert!(red.as_ref().is_some_and(|text| text.matches("us/").count() == 2), "{red:?}");
    bed.spawn_all();
    await_one_log_each(&bed);
}
