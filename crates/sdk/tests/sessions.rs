//! Single requests against a region that breaks, refuses, restarts and stays silent.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

mod region;

use std::time::Duration;

use region::{Fault, Region, until, wall};
use tombolo_causality::Stamp;
use tombolo_codec::WireVerb;
use tombolo_sdk::{Applied, Client, Options, Reject, RejectCode, Scope, SdkError, Token, Value};

#[tokio::test]
async fn what_is_written_is_read_back() {
    let region = Region::start();
    let session = region.client().await.session().await.unwrap();
    let written = session.counter("views:1").incr(5).await.unwrap();
    assert!(!written.replayed && !written.conditional && written.stamp.is_none());
    session.counter("views:1").decr(2).await.unwrap();
    let set = session.register("profile:1").set("Ada").await.unwrap();
    assert_eq!(set.stamp.unwrap().region, region.id());
    assert_eq!(session.counter("views:1").get().await, Ok(3));
    assert_eq!(session.counter("views:2").get().await, Ok(0));
    assert_eq!(session.register("profile:1").get().await.unwrap().unwrap(), "Ada");
    let values = session.read(&["profile:1", "nothing", "views:1"]).await.unwrap();
    assert!(matches!(&values[..], [Value::Register { .. }, Value::Absent, Value::Counter(3)]));
    session.register("profile:1").delete().await.unwrap();
    assert_eq!(session.register("profile:1").get().await, Ok(None));
    session.counter("views:1").delete().await.unwrap();
    assert_eq!(session.counter("views:1").get().await, Ok(0));
    session.register("p").set_for("soon gone", Duration::from_secs(60)).await.unwrap();
    let expires_at = region.world().applied.iter().find_map(|op| match op.verb {
        WireVerb::Set { expires_at, .. } => expires_at,
        _ => None,
    });
    assert!((expires_at.unwrap().seconds_since(wall()) - 60.0).abs() < 5.0);
    let wrong = session.counter("p").get().await.unwrap_err();
    assert!(matches!(&wrong, SdkError::Rejected(reject) if reject.code == RejectCode::WrongType));
    region.assert_no_breach();
}

#[tokio::test]
async fn every_request_counts_once_though_connections_break_before_and_after_it_is_applied() {
    let region = Region::start();
    region.script(region::breaking(40));
    let session = region.client().await.session().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let counter = session.counter(format!("views:{}", task % 3));
        tasks.spawn(async move {
            for _ in 0..15 {
                counter.incr(1).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let total: i128 = (0..3).map(|key| region.counter(&format!("views:{key}"))).sum();
    assert_eq!(total, 120);
    assert!(region.world().replays > 0, "some were applied before the connection broke");
    region.assert_no_breach();
}

#[tokio::test]
async fn a_refusal_that_passes_is_waited_for_under_the_same_number_and_stamp() {
    let region = Region::start();
    let mut left = 3;
    region.script(move |_| {
        left -= 1;
        let code = [RejectCode::Busy, RejectCode::StorageFull, RejectCode::NotWhole].get(left as usize)?;
        Some(Fault::Refuse(Reject::new(*code, "later").retry_after_ms(20)))
    });
    let session = region.client().await.session().await.unwrap();
    session.register("profile:1").set("Ada").await.unwrap();
    let numbers: Vec<(u64, bool)> = region.world().seen.iter().map(|s| (s.number, s.is_retry)).collect();
    assert_eq!(numbers, [(1, false), (1, true), (1, true), (1, true)]);
    region.assert_no_breach();
}

#[tokio::test]
async fn a_refusal_that_does_not_pass_is_reported_as_not_applied() {
    let region = Region::start();
    region.script(|_| Some(Fault::Refuse(Reject::new(RejectCode::NotWhole, "later").retry_after_ms(20))));
    let options = region.options().deadline(Duration::from_millis(300));
    let session = Client::connect(options).await.unwrap().session().await.unwrap();
    let error = session.counter("views:1").incr(1).await.unwrap_err();
    assert!(matches!(&error, SdkError::Rejected(reject) if reject.code == RejectCode::NotWhole));
    assert_eq!(error.applied(), Applied::No);
    assert!(region.world().seen.len() > 2);
}

#[tokio::test]
async fn after_a_restart_unknown_requests_keep_their_session_and_new_ones_get_a_new_one() {
    let region = Region::start();
    region.script(|seen| (seen.number == 2 && !seen.is_retry).then_some(Fault::Swallow));
    let session = region.client().await.session().await.unwrap();
    session.counter("views:1").incr(1).await.unwrap();
    let unknown = tokio::spawn({
        let counter = session.counter("views:1");
        async move { counter.incr(10).await }
    });
    until("the second request has arrived", || region.world().seen.len() == 2).await;
    region.script(|_| None);
    region.restart();
    assert!(unknown.await.unwrap().unwrap().replayed);
    session.counter("views:1").incr(100).await.unwrap();
    assert_eq!(region.counter("views:1"), 111);
    let seen = region.world().seen.clone();
    let [first, second, again, fresh] = &seen[..] else { panic!("four writes, not {}", seen.len()) };
    assert!(first.session == second.session && second.session == again.session);
    assert_eq!((again.number, again.is_retry), (2, true));
    assert_ne!(fresh.session, first.session);
    assert_eq!((fresh.number, fresh.is_retry), (1, false));
    region.assert_no_breach();
}

#[tokio::test]
async fn a_stamp_that_is_behind_is_drawn_anew_above_the_one_that_stands() {
    let region = Region::start();
    let ahead = Stamp { time: wall().plus_ms(200), region: region.id(), op: u128::MAX };
    region.world().merge(b"profile:1", ahead, Some(b"theirs".to_vec()));
    let session = region.client().await.session().await.unwrap();
    let written = session.register("profile:1").set("ours").await.unwrap();
    assert!(written.stamp.unwrap() > ahead);
    assert_eq!(session.register("profile:1").get().await.unwrap().unwrap(), "ours");
    let numbers: Vec<(u64, bool)> = region.world().seen.iter().map(|s| (s.number, s.is_retry)).collect();
    assert_eq!(numbers, [(1, false), (2, false)]);
    // What was seen raises the clock: the next one passes at once.
    let next = session.register("profile:2").set("x").await.unwrap();
    assert!(next.stamp.unwrap() > written.stamp.unwrap());
    region.assert_no_breach();
}

#[tokio::test]
async fn a_stamp_that_is_always_behind_is_reported_after_a_bounded_number_of_tries() {
    let region = Region::start();
    region.script(|seen| {
        let WireVerb::Set { stamp: Some(stamp), .. } = seen.ops[0].verb else { return None };
        let mut reject = Reject::new(RejectCode::StampBehind, "never enough");
        reject.stamp_needed = Some(Stamp { time: stamp.time.next(), ..stamp });
        Some(Fault::Refuse(reject))
    });
    let session = region.client().await.session().await.unwrap();
    let error = session.register("profile:1").set("x").await.unwrap_err();
    assert!(matches!(&error, SdkError::Rejected(reject) if reject.code == RejectCode::StampBehind));
    assert_eq!(region.world().seen.len(), 9);
    region.assert_no_breach();
}

#[tokio::test]
async fn an_answer_that_never_comes_is_unknown_and_the_mark_passes_it_only_then() {
    let region = Region::start();
    region.script(|seen| (seen.number == 1).then_some(Fault::Swallow));
    let options =
        region.options().deadline(Duration::from_millis(1_500)).failover_after(Duration::from_millis(300));
    let client = Client::connect(options).await.unwrap();
    let session = client.session().await.unwrap();
    let silent = tokio::spawn({
        let counter = session.counter("views:1");
        async move { counter.incr(1).await }
    });
    until("it has arrived", || !region.world().seen.is_empty()).await;
    session.counter("views:2").incr(1).await.unwrap();
    region.assert_no_breach();
    let error = silent.await.unwrap().unwrap_err();
    assert!(matches!(error, SdkError::Unknown { .. }), "{error}");
    assert_eq!(error.applied(), Applied::Unknown);
    let tries = region.world().seen.iter().filter(|seen| seen.number == 1).count();
    assert!(tries > 1, "a silent connection is given up for a new one");
    region.world().may_give_up = true;
    session.counter("views:2").incr(1).await.unwrap();
    let last = region.world().seen.last().cloned().unwrap();
    assert_eq!((last.number, last.settled), (3, 3));
    assert_eq!(region.counter("views:1"), 1);
}

#[tokio::test]
async fn nobody_is_reached_and_nothing_was_sent() {
    let region = Region::start();
    let options = region.options().deadline(Duration::from_millis(400));
    let client = Client::connect(options).await.unwrap();
    let session = client.session().await.unwrap();
    region.stop();
    let error = loop {
        // Until the client has noticed, a request may have been sent into the void.
        match session.counter("views:1").incr(1).await.unwrap_err() {
            SdkError::Unknown { .. } => {}
            error => break error,
        }
    };
    assert!(
        matches!(&error, SdkError::Unreachable { address, .. } if *address == region.address.to_string())
    );
    assert_eq!(error.applied(), Applied::No);
    assert!(matches!(client.read(&["k"], None).await, Err(SdkError::Unreachable { .. })));
    let options = region.options().connect_deadline(Duration::from_millis(300));
    assert!(matches!(Client::connect(options).await.err(), Some(SdkError::Unreachable { .. })));
}

#[tokio::test]
async fn a_wrong_token_or_ca_is_told_at_once() {
    let region = Region::start();
    let error = Client::connect(region.options().token("guessed")).await.err().unwrap();
    assert!(matches!(&error, SdkError::Rejected(reject) if reject.code == RejectCode::Unauthenticated));
    let stranger = Region::start();
    let foreign = Options::new(stranger.authority.cert_pem.clone(), region.address.to_string());
    let error = Client::connect(foreign).await.err().unwrap();
    assert!(matches!(error, SdkError::Setup { .. }), "{error}");
    let error = Client::connect(Options::new("no PEM", "127.0.0.1:1")).await.err().unwrap();
    assert!(matches!(error, SdkError::Setup { .. }), "{error}");
}

#[tokio::test]
async fn limits_are_checked_before_anything_is_sent() {
    let region = Region::start();
    let session = region.client().await.session().await.unwrap();
    let too_large =
        |error: SdkError| matches!(error, SdkError::Rejected(r) if r.code == RejectCode::TooLarge);
    assert!(too_large(session.counter(vec![b'k'; 1_025]).incr(1).await.unwrap_err()));
    assert!(too_large(session.register("p").set(vec![0; 256 * 1_024 + 1]).await.unwrap_err()));
    session.register("p").set(vec![0; 256 * 1_024]).await.unwrap();
    assert!(session.counter("c").decr(i64::MIN).await.is_err());
    assert_eq!(region.world().seen.len(), 1);
}

#[tokio::test]
async fn tokens_of_several_shards_are_waited_for_and_read_after_together() {
    let region = Region::start();
    let client = region.client().await;
    let session = client.session().await.unwrap();
    let mut token = Token::default();
    let keys: Vec<String> = (0..20).map(|key| format!("views:{key}")).collect();
    for (value, key) in keys.iter().enumerate() {
        let written = session.counter(key).incr(value as i64).await.unwrap();
        token.join(&written.token);
    }
    assert_eq!(token.texts().count(), usize::from(region::SHARDS_COUNT));
    assert_eq!(session.token().texts().count(), usize::from(region::SHARDS_COUNT));
    let awaited = client.wait(&token, Scope::All, Duration::from_secs(1)).await.unwrap();
    assert!(awaited.reached && awaited.waited == Duration::from_micros(1_500));
    let values = client.read(&keys, Some(&token)).await.unwrap();
    assert_eq!(values, (0..20).map(Value::Counter).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_requests_than_the_window_holds_wait_for_their_numbers() {
    let region = Region::start();
    let session = region.client().await.session().await.unwrap();
    region.hold(true);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let counter = session.counter("views:1");
        tasks.spawn(async move { counter.incr(1).await.unwrap() });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    region.hold(false);
    tasks.join_all().await;
    assert_eq!(region.counter("views:1"), 200);
    let widest = region.world().seen.iter().map(|seen| seen.number - seen.settled).max().unwrap();
    assert!((1..64).contains(&widest), "{widest}");
    region.assert_no_breach();
}

#[tokio::test]
async fn barriers_that_wait_hold_up_neither_writes_nor_reads() {
    let region = Region::start();
    let client = region.client().await;
    let session = client.session().await.unwrap();
    let token = session.counter("views:1").incr(1).await.unwrap().token;
    region.hold_barriers(true);
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..3_000 {
        let (client, token) = (client.clone(), token.clone());
        waits.spawn(async move { client.wait(&token, Scope::AtLeast(2), Duration::from_secs(20)).await });
    }
    for value in 2..10 {
        session.counter("views:1").incr(1).await.unwrap();
        assert_eq!(session.counter("views:1").get().await, Ok(value));
    }
    // Also those that were under way when the connection broke are answered.
    region.break_connections();
    session.counter("views:1").incr(1).await.unwrap();
    assert!(waits.try_join_next().is_none(), "none was answered");
    region.hold_barriers(false);
    let awaited = waits.join_all().await;
    assert!(awaited.len() == 3_000 && awaited.iter().all(|done| done.as_ref().unwrap().reached));
    region.assert_no_breach();
}
