//! A region dies for good and is removed while the others go on; restarted it is refused and says so; a new one takes
//! its place and catches up.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tombolo_testbed::cluster::binary;
use tombolo_tests::bed::Bed;
use tombolo_tests::caller::{Caller, Said};

/// Counters that take the load.
const KEYS: u64 = 7;

/// Writes to one region until it is told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    /// Adds answered yes, and those whose outcome is unknown.
    said: Arc<(AtomicU64, AtomicU64)>,
    thread: thread::JoinHandle<()>,
}

impl Load {
    fn start(caller: Caller, at: usize) -> Self {
        let (is_over, said) =
            (Arc::new(AtomicBool::new(false)), Arc::new(<(AtomicU64, AtomicU64)>::default()));
        let (over, counts) = (is_over.clone(), said.clone());
        let thread = thread::spawn(move || {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let add = json!({"ops": [{"op": "add", "key": format!("k{}", n % KEYS), "delta": "1"}]});
                match caller.write(at, &add, None) {
                    Said::Yes { .. } => drop(counts.0.fetch_add(1, Ordering::Relaxed)),
                    Said::Nothing(_) => drop(counts.1.fetch_add(1, Ordering::Relaxed)),
                    Said::No { .. } | Said::Unsent => {}
                }
            }
        });
        Self { is_over, said, thread }
    }

    /// Adds answered yes, and adds that may have counted besides.
    fn stop(self) -> (u64, u64) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (self.said.0.load(Ordering::Relaxed), self.said.1.load(Ordering::Relaxed))
    }
}

/// A daemon that the bed does not know; it dies with its test.
struct Extra(Child);

impl Drop for Extra {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tombolo(bed: &Bed, words: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.args(words).arg("--cluster").arg(bed.dir());
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Four ports in a row that nobody listens on.
fn free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 21_000 + u16::try_from(std::process::id() % 3_000).unwrap() * 10;
    (first..60_000).step_by(10).find(|&base| (base..base + 4).all(is_free)).unwrap()
}

fn total(values: impl Iterator<Item = Option<String>>) -> u64 {
    values.map(|value| value.map_or(0, |value| value.parse::<u64>().unwrap())).sum()
}

#[test]
fn a_dead_region_is_removed_with_exact_totals_and_a_new_one_takes_its_place() {
    let mut bed = Bed::start();
    bed.until("every region is whole", 20, Bed::not_whole);
    let caller = Caller::of(&bed);
    let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
    let loads: Vec<Load> = (0..3).map(|at| Load::start(caller.clone(), at)).collect();
    thread::sleep(Duration::from_millis(1_500));
    bed.cluster.kill9("ap").unwrap();
    thread::sleep(Duration::from_millis(500));

    // Alive it would be drained; dead it goes only with consent.
    let refused = tombolo(&bed, &["region", "remove", "ap", "--region", "eu"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
    let refused = tombolo(&bed, &["region", "remove", "ap", "--dead", "--region", "eu"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
    assert!(text(&refused).contains("--accept-risk"), "{}", text(&refused));
    let words = ["region", "remove", "ap", "--dead", "--accept-risk", "--region", "eu"];
    let removed = tombolo(&bed, &words);
    assert!(removed.status.success(), "{}", text(&removed));

    // Every shard gets its heir, while the others take writes.
    let regions = |bed: &Bed, at: &str| -> Value {
        let listed = tombolo(bed, &["region", "list", "-o", "json", "--region", at]);
        assert!(listed.status.success(), "{}", text(&listed));
        serde_json::from_slice(&listed.stdout).unwrap()
    };
    bed.until("the removed region has an heir in every shard", 20, |bed| {
        let both = ["eu", "us"].map(|at| regions(bed, at));
        let is_done = both.iter().all(|listed| {
            listed["regions"].as_array().unwrap().iter().all(|entry| {
                entry["shards_without_heir"] == 0
                    && (entry["standing"] == "removed") == (entry["name"] == "ap")
            })
        });
        (!is_done || both[0]["revision"] != both[1]["revision"]).then(|| format!("{both:?}"))
    });

    // A barrier on all regions is one on those that are left; one on the removed region names it.
    let (_, written) = bed.post("eu", "/v1/ops", &json!({"ops": [{"op": "add", "key": "b", "delta": "1"}]}));
    let (status, awaited) =
        bed.post("eu", "/v1/await", &json!({"token": written["token"], "timeout_ms": 5_000}));
    assert_eq!((status, &awaited["reached"]), (200, &json!(true)), "{awaited}");
    let body = json!({"token": written["token"], "regions": ["ap"], "timeout_ms": 100});
    let (_, awaited) = bed.post("eu", "/v1/await", &body);
    let laggards = awaited["laggards"].as_array().unwrap();
    let reason = laggards.iter().find(|laggard| laggard["region"] == "ap").map(|laggard| &laggard["reason"]);
    assert_eq!((&awaited["reached"], reason), (&json!(false), Some(&json!("evicted"))), "{awaited}");

    // Exact among those that are left: all that they said yes to, and of the dead one what any of them had.
    let said: Vec<(u64, u64)> = loads.into_iter().map(Load::stop).collect();
    bed.cluster.await_equal_digests_among(&["eu", "us"], Duration::from_secs(20)).unwrap();
    let totals: Vec<u64> = (0..2).map(|at| total(caller.read(at, &keys).unwrap().into_values())).collect();
    assert_eq!(totals[0], totals[1]);
    let least = said[0].0 + said[1].0;
    let most = said.iter().map(|(yes, unknown)| yes + unknown).sum::<u64>();
    assert!((least..=most).contains(&totals[0]), "{totals:?} of {said:?}");
    assert!(
        said[2].0 > 0 && totals[0] > least,
        "nothing of the dead region was kept: {totals:?} of {said:?}"
    );

    // Back from the dead, it is told that it is out.
    bed.cluster.spawn("ap").unwrap();
    bed.cluster.await_ready("ap").unwrap();
    bed.until("the removed region knows that it is", 20, |bed| {
        let status = bed.cluster.status("ap").unwrap();
        (status["standing"] != "removed").then(|| status["standing"].to_string())
    });
    let add = json!({"ops": [{"op": "add", "key": "k0", "delta": "1000"}]});
    let said = caller.write(2, &add, None);
    assert!(said.is_code("removed"), "{said}");
    bed.cluster.kill9("ap").unwrap();
    assert_eq!(total(caller.read(0, &keys).unwrap().into_values()), totals[0]);

    // It may not return under its name; another region takes its place, and catches up.
    let refused = tombolo(&bed, &["region", "add", "ap", "--region", "eu"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
    let port = free_ports().to_string();
    let added = tombolo(&bed, &["region", "add", "sa", "--base-port", &port, "--region", "us"]);
    assert!(added.status.success(), "{}", text(&added));
    let mut serve = Command::new(binary().unwrap());
    serve.args(["serve", "--region", "sa", "--cluster"]).arg(bed.dir());
    let log = std::fs::File::create(bed.dir().join("sa.log")).unwrap();
    let _sa = Extra(serve.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    bed.until("the new region holds what the others do", 30, |bed| {
        let get = |name: &str| tombolo(bed, &["get", name, "--region", "sa"]);
        let sum = keys.iter().map(|key| String::from_utf8_lossy(&get(key).stdout).trim().parse::<u64>().ok());
        let sum = sum.sum::<Option<u64>>();
        (sum != Some(totals[0])).then(|| format!("{sum:?} of {}", totals[0]))
    });
    let added = tombolo(&bed, &["incr", "k0", "--region", "sa"]);
    assert!(added.status.success(), "{}", text(&added));
    bed.until("a write of the new region is everywhere", 20, |_| {
        let held: Vec<u64> = (0..2).map(|at| total(caller.read(at, &keys).unwrap().into_values())).collect();
        (held != [totals[0] + 1; 2]).then(|| format!("{held:?}"))
    });
}

#[test]
fn a_region_that_lives_leaves_by_its_own_word_and_tells_the_others_even_after_a_restart() {
    let mut bed = Bed::start();
    bed.until("every region is whole", 20, Bed::not_whole);
    let caller = Caller::of(&bed);
    let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
    let load = Load::start(caller.clone(), 0);
    thread::sleep(Duration::from_millis(500));
    let done = |bed: &Bed, words: &[&str]| {
        let output = tombolo(bed, words);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let entry = |listed: &Value, name: &str| {
        listed["regions"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone()
    };
    // Whoever is asked to have it drain, the answer names the revision of the change itself.
    let before = done(&bed, &["region", "list", "-o", "json"])["revision"].as_u64().unwrap();
    let drained = done(&bed, &["region", "drain", "eu", "-o", "json", "--region", "us"]);
    assert_eq!((&drained["changed"], &drained["revision"]), (&json!(true), &json!(before + 1)));
    done(&bed, &["await", "--revision", &(before + 1).to_string(), "-o", "json"]);

    // Only the region itself knows that it acknowledged nothing since: others refuse, and say whom to ask.
    for (words, next) in [
        (["region", "remove", "eu", "--region", "us"].as_slice(), "tombolo region remove eu --region eu"),
        (
            &["region", "drain", "eu", "--undo", "--region", "us"],
            "tombolo region drain eu --undo --region eu",
        ),
    ] {
        let refused = tombolo(&bed, words);
        assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
        for part in ["ask region eu itself", "nothing was changed", "--dead", "applied: no", next] {
            assert!(text(&refused).contains(part), "`{part}` is not in: {}", text(&refused));
        }
    }
    done(&bed, &["region", "drain", "eu", "--undo", "-o", "json"]);
    let refused = tombolo(&bed, &["region", "remove", "eu"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
    assert!(text(&refused).contains("still takes writes"), "{}", text(&refused));
    thread::sleep(Duration::from_millis(300));

    // Nobody hears that it went, and it is the one that dials.
    done(&bed, &["region", "drain", "eu", "-o", "json", "--region", "eu"]);
    bed.until("all others hold what it wrote", 20, |bed| {
        let listed = done(bed, &["region", "list", "-o", "json", "--region", "eu"]);
        (entry(&listed, "eu")["drained"] != true).then(|| listed.to_string())
    });
    let (yes, unknown) = load.stop();
    for name in ["us", "ap"] {
        bed.cluster.kill9(name).unwrap();
    }
    let removed = done(&bed, &["region", "remove", "eu", "-o", "json"]);
    assert_eq!(
        (&removed["changed"], entry(&removed, "eu")["standing"].as_str()),
        (&json!(true), Some("removed"))
    );
    let again = done(&bed, &["region", "remove", "eu", "-o", "json"]);
    assert_eq!(again["changed"], json!(false));
    bed.cluster.kill9("eu").unwrap();
    for name in ["us", "ap", "eu"] {
        bed.cluster.spawn(name).unwrap();
        bed.cluster.await_ready(name).unwrap();
    }
    bed.until("the others know, and have taken over what it wrote", 30, |bed| {
        let listed = ["us", "ap"].map(|at| done(bed, &["region", "list", "-o", "json", "--region", at]));
        let has_left = |listed: &Value| {
            let entry = entry(listed, "eu");
            entry["standing"] == "removed" && entry["shards_without_heir"] == 0
        };
        (!listed.iter().all(has_left)).then(|| format!("{listed:?}"))
    });
    for at in [1, 2] {
        let held = total(caller.read(at, &keys).unwrap().into_values());
        assert!(yes > 0 && (yes..=yes + unknown).contains(&held), "{held} of {yes} and {unknown} at {at}");
    }

    // The last region that takes writes goes on doing so.
    done(&bed, &["region", "drain", "us", "-o", "json", "--region", "us"]);
    let refused = tombolo(&bed, &["region", "drain", "ap", "--region", "ap"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
    assert!(text(&refused).contains("last one that takes writes"), "{}", text(&refused));
}

#[test]
fn a_region_that_cannot_be_added_leaves_the_cluster_directory_as_it_was() {
    let bed = Bed::start();
    bed.until("every region is whole", 20, Bed::not_whole);
    let file = bed.dir().join("regions/us.toml");
    let before = std::fs::read(&file).unwrap();
    for (words, code) in [
        (["region", "add", "sa", "--id", "2"], 6),
        (["region", "add", "sa", "--advertise", "nonsense"], 2),
        (["region", "add", "us", "--advertise", "host.example:7403"], 6),
        (["region", "add", "us", "--id", "9"], 6),
    ] {
        let refused = tombolo(&bed, &words);
        assert_eq!(refused.status.code(), Some(code), "{words:?}: {}", text(&refused));
        let checked = tombolo(&bed, &["check"]);
        assert!(checked.status.success(), "after {words:?}: {}", text(&checked));
    }
    assert!(!bed.dir().join("regions/sa.toml").exists());
    assert_eq!(std::fs::read(&file).unwrap(), before);
    for words in [["region", "drain", "mars"], ["region", "remove", "mars"]] {
        let refused = tombolo(&bed, &words);
        assert_eq!(refused.status.code(), Some(5), "{words:?}: {}", text(&refused));
    }

    // Whoever asks without these files is told the same.
    for advertise in ["", "nonsense", "host.example:0"] {
        let body = json!({"action": "add", "name": "sa", "id": 9, "advertise": advertise});
        let (status, answer) = bed.post("eu", "/v1/admin/regions", &body);
        assert_eq!((status, &answer["code"]), (400, &json!("malformed")), "{advertise}: {answer}");
    }
}
