//! What any Redis client does, as bytes on a socket.

use std::time::Duration;

use tombolo_tests::bed::Bed;
use tombolo_tests::resp::{Reply, Resp};

#[test]
fn a_stock_client_connects_writes_in_a_pipeline_and_waits_for_all_regions() {
    let bed = Bed::start();
    let connect = |region: &str| Resp::connect(bed.cluster.resp(region).expect("a region"));
    let mut client = connect("eu");
    let ok = || Reply::Simple("OK".into());
    let Reply::Array(hello) = client.call(&["HELLO", "3"]) else { panic!("HELLO gives a map") };
    let place = hello.iter().position(|word| *word == Reply::Bulk(Some("proto".into())));
    assert_eq!(place.map(|at| &hello[at + 1]), Some(&Reply::Integer(3)), "{hello:?}");
    assert_eq!(client.call(&["CLIENT", "SETINFO", "LIB-NAME", "stock"]), ok());
    assert_eq!(client.call(&["CLIENT", "SETINFO", "LIB-VER", "7.0"]), ok());
    assert_eq!(client.call(&["CLIENT", "SETNAME", "test"]), ok());
    assert_eq!(client.call(&["PING"]), Reply::Simple("PONG".into()));

    // A transaction in one write, as client libraries send pipelines.
    let queued = || Reply::Simple("QUEUED".into());
    client.send(&[
        &["MULTI"],
        &["INCRBY", "views:1", "5"],
        &["SET", "name:1", "Ada"],
        &["GET", "name:1"],
        &["EXEC"],
    ]);
    let replies: Vec<Reply> = (0..5).filter_map(|_| client.read()).collect();
    let done = Reply::Array(vec![Reply::Integer(5), ok(), Reply::Bulk(Some("Ada".into()))]);
    assert_eq!(replies, [ok(), queued(), queued(), queued(), done]);
    client.send(&[&["INCR", "views:1"], &["DECRBY", "views:1", "2"], &["MGET", "views:1", "name:1", "none"]]);
    assert_eq!(client.read(), Some(Reply::Integer(6)));
    assert_eq!(client.read(), Some(Reply::Integer(4)));
    let values = vec![Reply::Bulk(Some("4".into())), Reply::Bulk(Some("Ada".into())), Reply::Bulk(None)];
    assert_eq!(client.read(), Some(Reply::Array(values)));

    // Both other regions hold this connection's last write once WAIT says so.
    assert_eq!(client.call(&["WAIT", "2", "5000"]), Reply::Integer(2));
    for region in ["us", "ap"] {
        let mut other = connect(region);
        assert_eq!(other.call(&["GET", "views:1"]), Reply::Bulk(Some("4".into())), "{region}");
    }

    assert!(client.call(&["SETNX", "lock", "mine"]).error().starts_with("NOTSUPPORTED "));
    assert!(client.call(&["GETT", "x"]).error().starts_with("ERR "));
    assert_eq!(client.call(&["DEL", "views:1", "none"]), Reply::Integer(1));
    assert_eq!(client.call(&["EXISTS", "views:1"]), Reply::Integer(0));
    assert_eq!(client.call(&["QUIT"]), ok());
    assert_eq!(client.read(), None, "QUIT ends the connection");
}

#[test]
fn wait_says_how_many_regions_have_it_when_one_is_gone() {
    let mut bed = Bed::start();
    let mut client = Resp::connect(bed.cluster.resp("eu").expect("a region"));
    assert_eq!(client.call(&["INCR", "views:1"]), Reply::Integer(1));
    assert_eq!(client.call(&["WAIT", "2", "5000"]), Reply::Integer(2));
    let ended = bed.cluster.terminate("ap", Duration::from_secs(10)).expect("ap ends on SIGTERM");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(client.call(&["INCR", "views:1"]), Reply::Integer(2));
    assert_eq!(client.call(&["WAIT", "2", "400"]), Reply::Integer(1));
}
