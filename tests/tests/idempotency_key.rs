//! `Idempotency-Key`: what is sent many times under one key counts once, also across kills of its region; other ops under
//! the key are refused.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tombolo_tests::bed::{Bed, REGIONS};
use tombolo_tests::caller::{Caller, Said};
use tombolo_tests::tell;

const CALLERS: usize = 8;
const KEYS: usize = 6;
/// How long a caller tries.
const TRY_MAX: Duration = Duration::from_secs(30);

fn body(key: usize) -> Value {
    // Two shards: a request is known in each of them.
    json!({"ops": [
        {"op": "add", "key": format!("paid:{key}"), "delta": "5"},
        {"op": "add", "key": format!("orders:{key}"), "delta": "1"},
    ]})
}

fn name(key: usize) -> String {
    format!("order-{key}")
}

/// Sends until there is a yes; all that was said.
fn send_until_yes(caller: &Caller, body: &Value, name: &str) -> Vec<Said> {
    let end = Instant::now() + TRY_MAX;
    let mut all = Vec::new();
    loop {
        let said = caller.write(0, body, Some(name));
        let is_yes = matches!(said, Said::Yes { .. });
        all.push(said);
        if is_yes || Instant::now() > end {
            return all;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where a key does not count exactly once.
fn wrong(caller: &Caller) -> Vec<String> {
    let expected = |key| [(format!("paid:{key}"), "5"), (format!("orders:{key}"), "1")];
    let mut wrong = Vec::new();
    for (at, region) in REGIONS.iter().enumerate() {
        for (key, expected) in (0..KEYS).flat_map(expected) {
            let found = caller.read(at, std::slice::from_ref(&key)).unwrap()[&key].clone();
            if found.as_deref() != Some(expected) {
                wrong.push(format!("{region}: {key} is {found:?}, not {expected}"));
            }
        }
    }
    wrong
}

#[test]
fn a_request_under_one_key_counts_once_however_often_it_is_sent_also_across_kills() {
    let mut bed = Bed::start();
    let caller = Caller::of(&bed);
    let (mut attempts, mut firsts, mut lost) = (0, 0, 0);
    for key in 0..KEYS {
        let said: Vec<Vec<Said>> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..CALLERS)
                .map(|at| {
                    let caller = caller.clone();
                    scope.spawn(move || {
                        // Some meet the region before, some after it went.
                        std::thread::sleep(Duration::from_millis(2 * at as u64));
                        send_until_yes(&caller, &body(key), &name(key))
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(1 + 2 * key as u64));
            bed.cluster.kill9("eu").unwrap();
            bed.cluster.spawn("eu").unwrap();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        for said in &said {
            assert!(matches!(said.last(), Some(Said::Yes { .. })), "key {key}: {said:#?}");
        }
        let all = said.iter().flatten();
        attempts += all.clone().count();
        lost += all.clone().filter(|said| matches!(said, Said::Nothing(_))).count();
        let news = all.filter(|said| matches!(said, Said::Yes { is_replayed: false, .. })).count();
        assert!(news <= 1, "key {key}: {news} callers were told that theirs was the first: {said:#?}");
        firsts += news;
        conflicts(&caller, key);
    }
    bed.until("every region is whole", 20, Bed::not_whole);
    bed.await_equal_digests();
    assert_eq!(wrong(&caller), Vec::<String>::new());
    tell(&format!(
        "{KEYS} keys, {CALLERS} callers each: {attempts} attempts, {lost} without an answer, {firsts} keys of which someone was told \
         to be the first"
    ));

    // Long after, and in another life: still known, still refused with other ops.
    for key in 0..KEYS {
        let said = caller.write(0, &body(key), Some(&name(key)));
        assert!(matches!(said, Said::Yes { is_replayed: true, .. }), "key {key}: {said}");
        conflicts(&caller, key);
    }
    bed.await_equal_digests();
    assert_eq!(wrong(&caller), Vec::<String>::new());

    // The same check goes red for a client that names its second attempt anew.
    let said = caller.write(0, &body(0), Some("order-0-again"));
    assert!(matches!(said, Said::Yes { is_replayed: false, .. }), "{said}");
    bed.await_equal_digests();
    assert_eq!(wrong(&caller).len(), 2 * REGIONS.len());
}

fn conflicts(caller: &Caller, key: usize) {
    let mut other = body(key);
    other["ops"][0]["delta"] = json!("6");
    let said = caller.write(0, &other, Some(&name(key)));
    let Said::No { code, is_without_effect, text } = &said else {
        panic!("other ops under key {key}: {said}")
    };
    assert!(code == "conflict" && text.starts_with("409 ") && *is_without_effect, "key {key}: {said}");
}
