//! Two or three regions of which some fail: the client goes on elsewhere by itself, and every op counts once.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

mod region;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use region::{Fault, Region, Seen, breaking, total};
use tombolo_codec::WireVerb;
use tombolo_sdk::{Applied, Client, Options, Reject, RejectCode, Scope, SdkError};

const FAILOVER_AFTER: Duration = Duration::from_millis(300);

fn options(regions: &[Region]) -> Options {
    let first = regions[0].options().failover_after(FAILOVER_AFTER).return_after(Duration::from_secs(600));
    regions[1..].iter().fold(first, |options, region| options.fallback(region.address.to_string()))
}

async fn client(regions: &[Region]) -> Client {
    Client::connect(options(regions)).await.unwrap()
}

fn assert_no_breach(regions: &[Region]) {
    regions.iter().for_each(Region::assert_no_breach);
}

fn writes(region: &Region) -> Vec<Seen> {
    region.world().seen.clone()
}

#[tokio::test]
async fn a_region_that_closes_is_left_at_once() {
    let regions = Region::start_many(3);
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    session.counter("views:1").incr(1).await.unwrap();
    assert_eq!(client.region(), regions[0].name());
    regions[0].stop();
    regions[1].shut(true);
    let start = Instant::now();
    session.counter("views:1").incr(10).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(client.region(), regions[2].name());
    let written = session.counter("views:1").incr(100).await.unwrap();
    assert!(!written.conditional, "a new op goes to a new session of the new region");
    assert_eq!(total(&regions, "views:1"), 111);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn a_client_that_begins_while_the_preferred_region_is_away_connects_to_the_next_one() {
    let regions = Region::start_many(2);
    regions[0].shut(true);
    let client = client(&regions).await;
    assert_eq!(client.region(), regions[1].name());
    assert!(!client.session().await.unwrap().counter("views:1").incr(1).await.unwrap().conditional);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn an_op_that_the_home_logged_before_it_died_counts_once() {
    let regions = Region::start_many(2);
    regions[0].script(|seen| (seen.number == 2).then_some(Fault::Swallow));
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    session.counter("views:1").incr(1).await.unwrap();
    let start = Instant::now();
    let written = session.counter("views:1").incr(10).await.unwrap();
    assert!(start.elapsed() >= FAILOVER_AFTER && start.elapsed() < FAILOVER_AFTER + Duration::from_secs(2));
    assert!(written.conditional && !written.replayed);
    session.counter("views:1").incr(100).await.unwrap();
    assert_eq!(total(&regions, "views:1"), 111);
    let (home, other) = (writes(&regions[0]), writes(&regions[1]));
    assert_eq!(home.len(), 2);
    let [again, fresh] = &other[..] else { panic!("two writes, not {}", other.len()) };
    assert_eq!((&again.session, again.number, again.is_retry), (&home[1].session, 2, true));
    assert!(fresh.is_home && !fresh.is_retry && fresh.number == 1);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn an_op_that_the_home_never_got_counts_once() {
    let regions = Region::start_many(2);
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    regions[0].hold(true);
    let written = session.counter("views:1").incr(1).await.unwrap();
    assert!(written.conditional);
    assert_eq!((regions[0].counter("views:1"), total(&regions, "views:1")), (0, 1));
    // What was on its way arrives after all.
    regions[0].hold(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(total(&regions, "views:1"), 1);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn a_set_that_is_sent_again_elsewhere_is_the_same_write() {
    let regions = Region::start_many(2);
    regions[0].script(|_| Some(Fault::Swallow));
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    let written = session.register("profile:1").set("Ada").await.unwrap();
    let copies = [&writes(&regions[0])[0].ops[0], &writes(&regions[1])[0].ops[0]].map(Clone::clone);
    assert_eq!(copies[0], copies[1]);
    let WireVerb::Set { stamp: Some(stamp), .. } = copies[0].verb else { panic!("{copies:?}") };
    assert_eq!(written.stamp, Some(stamp));
    assert_eq!(stamp.region, regions[0].id());
    // A write that follows stands above it.
    let next = session.register("profile:1").set("Bob").await.unwrap();
    assert!(next.stamp.unwrap() > stamp);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn the_mark_never_passes_an_op_that_only_another_region_answered() {
    let regions = Region::start_many(2);
    // At home both are lost; elsewhere 1 is answered, and 2 is not.
    regions[0].script(|seen| match seen.number {
        1 if !seen.is_retry => Some(Fault::BreakBefore),
        _ => None,
    });
    let over = Fault::Refuse(Reject::new(RejectCode::StorageFailed, "over"));
    regions[1].script(move |seen| (!seen.is_home && seen.number == 2).then(|| over.clone()));
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    regions[0].hold(true);
    let adds = [1, 10].map(|amount| {
        let counter = session.counter("views:1");
        tokio::spawn(async move { counter.incr(amount).await.unwrap() })
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    regions[0].hold(false);
    let [first, second] = adds;
    assert!(first.await.unwrap().conditional);
    assert!(!second.await.unwrap().conditional, "its home answered in the end");
    let at_home = writes(&regions[0]);
    let again = at_home.iter().find(|seen| seen.number == 2 && seen.is_retry).expect("it came back");
    assert_eq!(again.settled, 1);
    assert_eq!(total(&regions, "views:1"), 11);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn a_home_that_restarted_and_is_not_whole_answers_conditionally_and_its_session_is_left() {
    let regions = Region::start_many(1);
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    session.counter("views:1").incr(1).await.unwrap();
    regions[0].hold(true);
    let unknown = tokio::spawn({
        let counter = session.counter("views:1");
        async move { counter.incr(10).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    regions[0].world().is_whole = false;
    regions[0].restart();
    regions[0].hold(false);
    assert!(unknown.await.unwrap().conditional);
    assert!(!session.counter("views:1").incr(100).await.unwrap().conditional);
    let seen = writes(&regions[0]);
    assert_eq!((&seen[1].session, seen[1].is_retry), (&seen[0].session, true));
    assert_ne!(seen[2].session, seen[0].session);
    assert_eq!(total(&regions, "views:1"), 111);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn regions_that_are_all_slow_are_waited_for_in_the_end() {
    let regions = Region::start_many(2);
    for region in &regions {
        region.script(|_| Some(Fault::Late(FAILOVER_AFTER * 3)));
    }
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    for _ in 0..2 {
        session.counter("views:1").incr(1).await.unwrap();
    }
    assert_eq!(total(&regions, "views:1"), 2);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn it_goes_back_to_the_preferred_region_once_that_answers_again_and_stays_there() {
    let regions = Region::start_many(2);
    let options = options(&regions).return_after(Duration::from_millis(200));
    let client = Client::connect(options).await.unwrap();
    let session = client.session().await.unwrap();
    session.counter("views:1").incr(1).await.unwrap();
    regions[0].shut(true);
    let mut adds_count = 1;
    let mut add = async || {
        adds_count += 1;
        let written = session.counter("views:1").incr(1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        written.conditional
    };
    while client.region() == regions[0].name() {
        add().await;
    }
    let away = Instant::now();
    while away.elapsed() < Duration::from_millis(600) {
        add().await;
        assert_eq!(client.region(), regions[1].name());
    }
    regions[0].shut(false);
    while client.region() == regions[1].name() {
        assert!(away.elapsed() < Duration::from_secs(10), "it does not come back");
        assert!(!add().await, "nothing is under way when it moves");
    }
    let count = regions[1].world().seen.len();
    for _ in 0..100 {
        add().await;
    }
    assert_eq!(regions[1].world().seen.len(), count);
    assert_eq!(total(&regions, "views:1"), adds_count);
    assert_no_breach(&regions);
}

#[tokio::test]
async fn a_region_that_says_it_cannot_serve_is_left() {
    for code in [RejectCode::ShuttingDown, RejectCode::StorageFailed] {
        let regions = Region::start_many(2);
        regions[0].script(move |_| Some(Fault::Refuse(Reject::new(code, "over"))));
        let client = client(&regions).await;
        let session = client.session().await.unwrap();
        let written = session.counter("views:1").incr(1).await.unwrap();
        assert!(!written.conditional, "nothing of it was applied, so it goes under a new session");
        assert_eq!(client.region(), regions[1].name());
        assert_eq!(total(&regions, "views:1"), 1);
        assert_no_breach(&regions);
    }
    // With no other one its refusal is the answer.
    let region = Region::start();
    region.script(|_| Some(Fault::Refuse(Reject::new(RejectCode::StorageFailed, "over"))));
    let session = region.client().await.session().await.unwrap();
    let error = session.counter("views:1").incr(1).await.unwrap_err();
    assert!(matches!(error, SdkError::Rejected(reject) if reject.code == RejectCode::StorageFailed));
}

#[tokio::test]
async fn tokens_hold_after_a_failover() {
    let regions = Region::start_many(2);
    let client = client(&regions).await;
    let session = client.session().await.unwrap();
    let token = session.register("profile:1").set("Ada").await.unwrap().token;
    regions[0].stop();
    assert_eq!(session.register("profile:2").get().await, Ok(None));
    assert_eq!(client.region(), regions[1].name());
    assert!(client.wait(&token, Scope::All, Duration::from_secs(5)).await.unwrap().reached);
    session.register("profile:2").set("Bob").await.unwrap();
    assert_eq!(session.register("profile:2").get().await.unwrap().unwrap(), "Bob");
    let epochs: Vec<String> = session.token().texts().map(str::to_owned).collect();
    assert_eq!(epochs.len(), 2, "it names the logs of both regions");
}

#[tokio::test]
async fn what_no_region_answers_is_unknown_after_the_deadline() {
    let regions = Region::start_many(2);
    for region in &regions {
        region.script(|_| Some(Fault::Swallow));
        region.world().may_give_up = true;
    }
    let client = Client::connect(options(&regions).deadline(Duration::from_secs(2))).await.unwrap();
    let session = client.session().await.unwrap();
    let mut writer = session.writer();
    let start = Instant::now();
    writer.add("views:1", 1).await.unwrap();
    let error = session.counter("views:1").incr(10).await.unwrap_err();
    assert!(matches!(error, SdkError::Unknown { .. }), "{error}");
    assert_eq!(error.applied(), Applied::Unknown);
    let report = writer.flush().await.unwrap();
    assert!((2..4).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!((report.accepted, report.rejected_count, report.unknown), (0, 0, 1));
    let (key, text) = &report.unknown_first[0];
    assert_eq!((&key[..], text.is_empty()), (&b"views:1"[..], false));
    assert!(regions.iter().all(|region| !region.world().seen.is_empty()), "each of them was tried");
    assert_eq!(total(&regions, "views:1"), 11, "it counts at most once all the same");
}

#[tokio::test]
async fn new_requests_go_to_a_new_session_before_the_window_is_over() {
    let region = Region::start();
    region.world().window_seconds = 1;
    let session = region.client().await.session().await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_300) {
        session.counter("views:1").incr(1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut sessions: Vec<String> = writes(&region).into_iter().map(|seen| seen.session).collect();
    sessions.dedup();
    assert_eq!(sessions.len(), 3, "one for each half of a window");
    region.assert_no_breach();
}

#[tokio::test]
async fn a_writer_counts_every_op_once_though_regions_break_and_take_over_all_the_time() {
    let regions = Region::start_many(3);
    for (region, every) in regions.iter().zip([7, 9, 11]) {
        region.script(breaking(every));
    }
    let options = options(&regions).writer_run(20, 64 * 1_024).return_after(Duration::from_millis(50));
    let client = Client::connect(options).await.unwrap();
    let mut writer = client.session().await.unwrap().writer();
    let mut expected: HashMap<String, i128> = HashMap::new();
    for op in 0..3_000i64 {
        let (key, delta) = (format!("views:{}", op % 17), op % 5 + 1);
        writer.add(&key, delta).await.unwrap();
        *expected.entry(key).or_default() += i128::from(delta);
    }
    let report = writer.flush().await.unwrap();
    assert_eq!((report.accepted, report.rejected_count, report.unknown), (3_000, 0, 0));
    let conditional: usize = regions.iter().map(|region| region.world().conditional_count()).sum();
    assert!(report.conditional > 0 && conditional > 0, "{report:?}");
    for (key, value) in expected {
        assert_eq!(total(&regions, &key), value, "{key}");
    }
    assert_no_breach(&regions);
}
