//! A region whose disk came back as it was before: it says whom it waits for, goes on serving, takes back from its peers
//! what it lost, and ends with exact totals.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use serde_json::json;
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::caller::{Caller, Said};
use tombolo_tests::disks;
use tombolo_tests::ledger::{Ledger, Values};
use tombolo_tests::tell;

/// Ops of each stretch.
const OPS: usize = 20;

/// A cluster, and a client of `eu`.
struct Scene {
    bed: Bed,
    caller: Caller,
    ledger: Ledger,
}

impl Scene {
    fn start(name: &str) -> Self {
        let bed = Bed::start();
        let caller = Caller::of(&bed);
        Self { bed, caller, ledger: Ledger::new(name).keeping_numbers() }
    }

    /// Keeps a region's disk as it is.
    fn save(&mut self, region: &str) {
        self.bed.cluster.kill9(region).unwrap();
        disks::keep(&self.bed, region, "old");
        self.bed.spawn_all();
    }

    /// Puts the kept disk in the place of the region's own, and leaves the region stopped.
    fn put_back(&mut self, region: &str) {
        self.bed.cluster.kill9(region).unwrap();
        disks::put_back(&self.bed, region, "old");
    }

    fn open_session(&mut self) {
        let id = self.caller.open_session(0).unwrap();
        self.ledger.open(id, 0);
    }

    /// Ops in a session, each answered yes by `eu`; whether all were answered as by their authority.
    fn write(&mut self, session: usize, count: usize) -> bool {
        let mut is_conditional = false;
        for _ in 0..count {
            let op = self.ledger.next_in(session, true);
            is_conditional |= self.send(op, false);
        }
        !is_conditional
    }

    /// Sends an op to `eu`, which must say yes; whether the yes is conditional.
    fn send(&mut self, op: usize, is_retry: bool) -> bool {
        let said = self.caller.write(0, &self.ledger.body(op, is_retry), None);
        self.ledger.note(op, if is_retry { "Http eu, again" } else { "Http eu" }, said.clone());
        let Said::Yes { is_conditional, .. } = said else { panic!("{}", self.ledger.history(op)) };
        is_conditional.unwrap()
    }

    /// Sends all ops there were again; how many are answered as conditional.
    fn send_all_again(&mut self) -> usize {
        (0..self.ledger.len()).filter(|op| self.send(*op, true)).count()
    }

    /// Two stretches on the disk that is kept, two that it lacks; all of it on the disks of the peers.
    fn write_and_save(&mut self) {
        self.open_session();
        self.write(0, OPS);
        self.save("eu");
        self.write_beyond(0);
    }

    /// What the kept disk lacks, in the session opened before and in one opened after.
    fn write_beyond(&mut self, session: usize) {
        self.bed.until("every region is whole", 20, Bed::not_whole);
        assert!(self.write(session, OPS));
        self.open_session();
        assert!(self.write(self.ledger.sessions_count() - 1, OPS));
        self.bed.await_equal_digests();
    }

    /// Exact at last: whole, equal, every op once.
    fn await_exact(&self) {
        self.bed.until("every region is whole", 30, Bed::not_whole);
        self.bed.await_equal_digests();
        assert_eq!(self.wrong(&REGIONS).join("\n"), "");
    }

    fn wrong(&self, regions: &[&str]) -> Vec<String> {
        let keys = self.ledger.keys();
        let at = |region: &str| REGIONS.iter().position(|known| *known == region).unwrap();
        let held = regions
            .iter()
            .map(|region| (String::from(*region), self.caller.read(at(region), &keys).unwrap()));
        self.ledger.verdict(&held.collect::<Values>())
    }

    /// `eu` is not whole and says whom it waits for.
    fn waits_for(&self, names: &[&str]) {
        let status = self.bed.cluster.status("eu").unwrap();
        assert_eq!((&status["whole"], &status["waiting_for"]), (&json!(false), &json!(names)));
    }
}

#[test]
fn a_region_whose_old_disk_was_put_back_under_its_peers_eyes_ends_exact_also_the_second_time() {
    let mut scene = Scene::start("up");
    scene.write_and_save();
    for round in 0..2 {
        scene.put_back("eu");
        scene.bed.spawn_all();
        // At once, whole or not.
        let conditional = scene.send_all_again();
        tell(&format!(
            "old disk, round {round}: {conditional} of {} retries conditional",
            scene.ledger.len()
        ));
        scene.await_exact();
        scene.send_all_again();
        scene.write_beyond(0);
    }
    // What is put back a third time is older than two lives of the region, and comes twice in a row.
    for _ in 0..2 {
        scene.put_back("eu");
        scene.bed.spawn_all();
    }
    scene.await_exact();
}

#[test]
fn an_old_disk_that_starts_alone_serves_and_waits_for_both_peers() {
    let mut scene = Scene::start("alone");
    scene.write_and_save();
    for round in 0..2 {
        scene.put_back("eu");
        for peer in ["us", "ap"] {
            scene.bed.cluster.kill9(peer).unwrap();
        }
        scene.bed.cluster.spawn("eu").unwrap();
        scene.bed.cluster.await_ready("eu").unwrap();
        scene.waits_for(&["us", "ap"]);
        let lost = scene.wrong(&["eu"]);
        assert!(!lost.is_empty(), "nothing was lost: the disk was not old");
        // It cannot know what it lost: retries count once only if their yes is conditional.
        let conditional = scene.send_all_again();
        assert!(conditional >= 2 * OPS, "{conditional} of {} retries conditional", scene.ledger.len());
        scene.open_session();
        assert!(scene.write(scene.ledger.sessions_count() - 1, OPS), "it is the authority of what it opens");
        assert_eq!(
            scene.wrong(&["eu"]).join("\n"),
            "",
            "every op was sent again, and counts once here already"
        );
        scene.waits_for(&["us", "ap"]);
        scene.bed.spawn_all();
        scene.await_exact();
        tell(&format!(
            "old disk alone, round {round}: {conditional} of {} retries conditional",
            scene.ledger.len()
        ));
    }
}

#[test]
fn an_old_disk_with_one_peer_up_takes_its_lost_tail_from_it_and_waits_for_the_other() {
    let mut scene = Scene::start("one");
    scene.write_and_save();
    scene.put_back("eu");
    scene.bed.cluster.kill9("ap").unwrap();
    scene.bed.cluster.spawn("eu").unwrap();
    scene.bed.cluster.await_ready("eu").unwrap();
    let names_ap = |scene: &Scene| {
        let status = scene.bed.cluster.status("eu").unwrap();
        assert_eq!(status["whole"], false, "ap has not answered");
        let waiting = status["waiting_for"].as_array().unwrap();
        assert!(waiting.contains(&json!("ap")), "{waiting:?}");
    };
    names_ap(&scene);
    // Some of them before the tail is back.
    let conditional = scene.send_all_again();
    let taken = {
        let (caller, ledger) = (&scene.caller, &scene.ledger);
        scene.bed.until("the lost tail is back", 20, |_| {
            let held = caller.read(0, &ledger.keys()).map(|held| Values::from([("eu".to_owned(), held)]));
            held.map_or_else(Some, |held| ledger.verdict(&held).into_iter().next())
        })
    };
    names_ap(&scene);
    scene.write(0, OPS);
    scene.send_all_again();
    scene.open_session();
    scene.write(scene.ledger.sessions_count() - 1, OPS);
    assert_eq!(scene.wrong(&["eu"]).join("\n"), "", "it holds every op once while it still waits");
    names_ap(&scene);
    scene.bed.spawn_all();
    scene.await_exact();
    tell(&format!(
        "old disk with one peer up: the lost tail was back {} ms after the retries, {conditional} of {} conditional",
        taken.as_millis(),
        3 * OPS
    ));
}

#[test]
fn sabotage_a_tail_that_nobody_holds_any_more_turns_the_verdict_red() {
    let mut scene = Scene::start("gone");
    scene.open_session();
    scene.write(0, OPS);
    scene.bed.await_equal_digests();
    for region in REGIONS {
        scene.save(region);
    }
    scene.write_beyond(0);
    assert_eq!(scene.wrong(&REGIONS).join("\n"), "");
    for region in REGIONS {
        scene.put_back(region);
    }
    scene.bed.spawn_all();
    scene.bed.until("every region is whole", 30, Bed::not_whole);
    scene.bed.await_equal_digests();
    let red = scene.wrong(&REGIONS);
    let lost = red.iter().filter(|text| text.contains("counts ap: 0, eu: 0, us: 0: op")).count();
    assert_eq!(lost, 2 * OPS, "{red:#?}");
}
