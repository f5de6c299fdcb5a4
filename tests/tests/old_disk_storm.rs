//! One region's disk comes back old, or empty, again and again, while the others are killed under load. What these two
//! acked is on their disks: it counts exactly once, everywhere, when the storm is over.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::time::Duration;

use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::caller::{Caller, Said};
use tombolo_tests::chance::Chance;
use tombolo_tests::ledger::Ledger;
use tombolo_tests::storm::{self, Storm};
use tombolo_tests::writer::Writer;
use tombolo_tests::{disks, tell};

const OLD: &str = "eu";
/// Places in [`REGIONS`] of those whose disks are sound.
const SOUND: [usize; 2] = [1, 2];
/// Disks that are kept, of different ages.
const KEPT: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Default)]
struct Done {
    kept: usize,
    put_back: usize,
    lost: usize,
    killed: usize,
}

/// Kills the region and has its disk kept, exchanged or emptied.
fn strike_old(bed: &mut Bed, chance: &mut Chance, done: &mut Done) {
    storm::kill(bed, OLD);
    let name = KEPT[chance.below(KEPT.len())];
    match chance.below(10) {
        0..3 => {
            disks::keep(bed, OLD, name);
            done.kept += 1;
        }
        3..9 => {
            disks::put_back(bed, OLD, name);
            done.put_back += 1;
        }
        _ => {
            disks::lose(bed, OLD);
            done.lost += 1;
        }
    }
    bed.cluster.spawn(OLD).unwrap();
}

fn rage(bed: &mut Bed, storm: Storm) -> Done {
    let mut done = Done::default();
    storm::kill(bed, OLD);
    for name in KEPT {
        disks::keep(bed, OLD, name);
    }
    bed.cluster.spawn(OLD).unwrap();
    storm.rage(|round, chance| {
        if round % 2 == 1 {
            strike_old(bed, chance, &mut done);
            // Again, before it may have met anyone.
            if chance.percent(30) {
                strike_old(bed, chance, &mut done);
            }
        } else {
            let first = chance.below(SOUND.len());
            let victims = if chance.percent(40) { &SOUND[..] } else { &SOUND[first..=first] };
            for victim in victims {
                storm::kill(bed, REGIONS[*victim]);
                done.killed += 1;
            }
            // Now and then the old one is alone for long enough to be ready.
            std::thread::sleep(Duration::from_millis(chance.below(700) as u64));
            for victim in victims {
                bed.cluster.spawn(REGIONS[*victim]).unwrap();
            }
        }
    });
    done
}

#[test]
fn a_disk_that_comes_back_old_again_and_again_neither_loses_nor_doubles_what_the_others_acked() {
    // Without checkpoints no log is pruned: the old disk may ask for all of them.
    let edited = |region: &str| format!("{region}\ncheckpoint_interval_seconds = 0\n");
    let (storm, mut bed) = (Storm::of_seconds(15), Bed::start_edited(edited));
    let caller = Caller::of(&bed);
    let writer = |at| {
        let writer = Writer::new(&format!("w{at}"), caller.clone(), storm.seed * 10 + at, at % 2 == 0);
        writer.among(&SOUND)
    };
    let mut writers: Vec<Writer> = (0..3).map(writer).collect();
    let done = storm::run(&mut writers, &mut [], || {
        let done = rage(&mut bed, storm);
        bed.spawn_all();
        done
    });
    let calm = storm::await_calm(&bed);
    storm::check(&caller, &writers, storm);
    bed.until("earlier logs are sealed", 20, |bed| REGIONS.iter().find_map(|region| bed.unsealed(region)));
    tell(&format!(
        "old disks for {} s: {done:?}; {}; calm {} ms after",
        storm.lasts.as_secs(),
        storm::tale(&writers, 300),
        calm.as_millis()
    ));
    assert!(done.put_back > 2, "{done:?}: hardly a disk was put back");
    what_only_the_old_disk_lacks_turns_the_verdict_red(&mut bed, &caller);
}

/// Sabotage: an op acked by the region itself, while it was alone, and then its disk put back.
fn what_only_the_old_disk_lacks_turns_the_verdict_red(bed: &mut Bed, caller: &Caller) {
    for at in SOUND {
        storm::kill(bed, REGIONS[at]);
    }
    let mut ledger = Ledger::new("alone");
    ledger.open(caller.open_session(0).unwrap(), 0);
    let op = ledger.next(false);
    let said = caller.write(0, &ledger.body(op, false), None);
    assert!(matches!(said, Said::Yes { .. }), "{said}");
    ledger.note(op, "Http eu", said);
    storm::kill(bed, OLD);
    disks::put_back(bed, OLD, KEPT[0]);
    bed.spawn_all();
    storm::await_calm(bed);
    let red = storm::verdict(caller, &ledger);
    assert!(red.len() == 1 && red[0].contains("eu: 0, us: 0: op 0 of alone"), "{red:?}");
}
