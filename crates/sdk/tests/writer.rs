//! The writer: batches, back-pressure, order, and what its report says.

#![allow(clippy::unwrap_used, reason = "a step that fails must fail its test")]

mod region;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use region::{Fault, Region, breaking, until};
use tombolo_codec::WireVerb;
use tombolo_sdk::{Client, Kind, Reject, RejectCode, SdkError};

#[tokio::test]
async fn every_op_counts_once_though_connections_break() {
    let region = Region::start();
    let mut breaks = breaking(13);
    let mut count = 0;
    region.script(move |seen| {
        count += 1;
        let busy = Fault::Refuse(Reject::new(RejectCode::Busy, "later").retry_after_ms(5));
        breaks(seen).or_else(|| (count % 5 == 0).then_some(busy))
    });
    let options = region.options().writer_run(100, 64 * 1_024);
    let client = Client::connect(options).await.unwrap();
    let mut writer = client.session().await.unwrap().writer();
    let mut expected: HashMap<String, i128> = HashMap::new();
    for op in 0..3_000i64 {
        let (key, delta) = (format!("views:{}", op % 17), op % 5 - 2);
        writer.add(&key, delta).await.unwrap();
        *expected.entry(key).or_default() += i128::from(delta);
    }
    let report = writer.flush().await.unwrap();
    assert_eq!((report.accepted, report.rejected_count, report.unknown), (3_000, 0, 0));
    assert_eq!(report.token.texts().count(), usize::from(region::SHARDS_COUNT));
    for (key, value) in expected {
        assert_eq!(region.counter(&key), value, "{key}");
    }
    assert!(region.world().replays > 0, "some were applied before the connection broke");
    assert_eq!(writer.flush().await.unwrap().accepted, 0, "a report is of what came since the last");
    region.assert_no_breach();
}

#[tokio::test]
async fn a_full_buffer_makes_its_caller_wait_and_holds_no_more() {
    let region = Region::start();
    region.hold(true);
    let options = region.options().writer_room(1_000, 1_024 * 1_024);
    let client = Client::connect(options).await.unwrap();
    let mut writer = client.session().await.unwrap().writer();
    let added = Arc::new(AtomicUsize::new(0));
    let adding = tokio::spawn({
        let added = added.clone();
        async move {
            let mut most = 0;
            for op in 0..5_000 {
                writer.add(format!("views:{}", op % 50), 1).await.unwrap();
                added.fetch_add(1, Ordering::SeqCst);
                most = most.max(writer.held().0);
            }
            (writer.flush().await.unwrap(), most)
        }
    });
    until("the buffer is full", || added.load(Ordering::SeqCst) == 1_000).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(added.load(Ordering::SeqCst), 1_000);
    region.hold(false);
    let (report, most) = adding.await.unwrap();
    assert_eq!(report.accepted, 5_000);
    assert_eq!(most, 1_000);
    assert_eq!((0..50).map(|key| region.counter(&format!("views:{key}"))).sum::<i128>(), 5_000);
    region.assert_no_breach();
}

#[tokio::test]
async fn bytes_are_bounded_too_and_one_op_always_fits() {
    let region = Region::start();
    let options = region.options().writer_room(1_000_000, 10_000);
    let client = Client::connect(options).await.unwrap();
    let mut writer = client.session().await.unwrap().writer();
    for op in 0..200 {
        writer.set(format!("profile:{op}"), vec![b'x'; 1_000]).await.unwrap();
        assert!(writer.held().1 <= 10_000);
    }
    writer.set("profile:large", vec![b'x'; 20_000]).await.unwrap();
    assert_eq!(writer.flush().await.unwrap().accepted, 201);
    assert_eq!(writer.held(), (0, 0));
}

#[tokio::test]
async fn a_lone_op_leaves_at_once_and_runs_grow_while_requests_are_in_flight() {
    let region = Region::start();
    let mut writer = region.client().await.session().await.unwrap().writer();
    writer.add("views:1", 1).await.unwrap();
    until("it has left without a flush", || region.counter("views:1") == 1).await;
    region.hold(true);
    for _ in 0..3_000 {
        writer.add("views:1", 1).await.unwrap();
        if writer.held().0 < 10 {
            tokio::task::yield_now().await;
        }
    }
    region.hold(false);
    assert_eq!(writer.flush().await.unwrap().accepted, 3_001);
    let sizes: Vec<usize> = region.world().seen.iter().map(|seen| seen.ops.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 3_001);
    assert!(sizes.len() <= 7 && sizes.iter().all(|&size| size <= 1_024), "{sizes:?}");
    region.assert_no_breach();
}

#[tokio::test]
async fn writes_to_a_key_keep_their_order_whatever_breaks() {
    let region = Region::start();
    let mut breaks = breaking(10);
    region.script(move |seen| {
        let busy = Fault::Refuse(Reject::new(RejectCode::Busy, "later").retry_after_ms(30));
        breaks(seen).or_else(|| (!seen.is_retry && seen.number % 4 == 1).then_some(busy))
    });
    let options = region.options().writer_run(20, 64 * 1_024);
    let client = Client::connect(options).await.unwrap();
    let session = client.session().await.unwrap();
    let mut writer = session.writer();
    for value in 0..400 {
        writer.set(format!("profile:{}", value % 2), value.to_string()).await.unwrap();
    }
    let report = writer.flush().await.unwrap();
    assert_eq!((report.accepted, report.unknown), (400, 0));
    assert_eq!(session.register("profile:0").get().await.unwrap().unwrap(), "398");
    assert_eq!(session.register("profile:1").get().await.unwrap().unwrap(), "399");
    let mut sets: Vec<_> = region
        .world()
        .applied
        .iter()
        .map(|op| match &op.verb {
            WireVerb::Set { value, stamp: Some(stamp), .. } => {
                (*stamp, String::from_utf8(value.clone()).unwrap().parse::<u32>().unwrap())
            }
            other => panic!("not a set: {other:?}"),
        })
        .collect();
    assert!(!sets.is_sorted_by_key(|&(_, value)| value), "nothing was ever out of order: a weak test");
    for parity in 0..2 {
        sets.sort_unstable();
        let values: Vec<u32> = sets.iter().map(|&(_, value)| value).filter(|v| v % 2 == parity).collect();
        assert!(values.is_sorted(), "stamps follow the order of the calls");
    }
    region.assert_no_breach();
}

#[tokio::test]
async fn one_refused_op_does_not_take_its_run_down() {
    let region = Region::start();
    let session = region.client().await.session().await.unwrap();
    session.register("views:13").set("not a counter").await.unwrap();
    region.hold(true);
    let mut writer = session.writer();
    for op in 0..2_000 {
        writer.add(format!("views:{}", op % 100), 1).await.unwrap();
    }
    writer.delete("views:200", Some(Kind::Counter)).await.unwrap();
    region.hold(false);
    let report = writer.flush().await.unwrap();
    assert_eq!((report.accepted, report.rejected_count, report.unknown), (1_981, 20, 0));
    assert_eq!(report.rejected.len(), 20);
    for (key, reject) in &report.rejected {
        assert_eq!((&key[..], reject.code), (&b"views:13"[..], RejectCode::WrongType));
    }
    let total: i128 = (0..100).map(|key| region.counter(&format!("views:{key}"))).sum();
    assert_eq!(total, 1_980);
    region.assert_no_breach();
}

#[tokio::test]
async fn ops_without_an_answer_are_reported_as_unknown_and_those_never_sent_as_refused() {
    let region = Region::start();
    let options = region
        .options()
        .deadline(Duration::from_millis(1_000))
        .writer_run(10, 64 * 1_024)
        .writer_runs_in_flight(1);
    let client = Client::connect(options).await.unwrap();
    let mut writer = client.session().await.unwrap().writer();
    region.world().may_give_up = true;
    region.script(|_| Some(Fault::Swallow));
    for _ in 0..10 {
        writer.add("views:1", 1).await.unwrap();
    }
    until("they have arrived", || !region.world().seen.is_empty()).await;
    region.stop();
    for _ in 0..10 {
        writer.add("views:1", 1).await.unwrap();
    }
    let report = writer.flush().await.unwrap();
    let applied = region.counter("views:1") as u64;
    assert_eq!(report.accepted, 0);
    assert!(report.unknown >= applied && report.unknown > 0, "{report:?}");
    assert_eq!(report.unknown + report.rejected_count, 20);
    assert!(report.rejected_count > 0, "what was never sent was not applied: {report:?}");
}

#[tokio::test]
async fn closing_sends_what_is_buffered_and_refuses_what_comes_later() {
    let region = Region::start();
    let client = region.client().await;
    let session = client.session().await.unwrap();
    let mut writer = session.writer();
    for _ in 0..5_000 {
        writer.add("views:1", 1).await.unwrap();
    }
    client.close().await;
    assert_eq!(region.counter("views:1"), 5_000);
    assert_eq!(writer.flush().await.unwrap().accepted, 5_000);
    assert_eq!(writer.add("views:1", 1).await, Err(SdkError::Closed));
    assert_eq!(session.counter("views:1").incr(1).await, Err(SdkError::Closed));
    assert!(session.writer().add("views:1", 1).await.is_err());
    client.close().await;
    region.assert_no_breach();
}

#[tokio::test]
async fn a_dropped_client_still_sends_what_its_writer_held() {
    let region = Region::start();
    let mut writer = region.client().await.session().await.unwrap().writer();
    for _ in 0..3_000 {
        writer.add("views:1", 1).await.unwrap();
    }
    drop(writer);
    until("all have arrived", || region.counter("views:1") == 3_000).await;
}
