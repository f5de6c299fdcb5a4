//! The session table: marks, digests, room.

use tombolo_causality::{Epoch, RegionId, Time};

use super::*;

fn id(random: u64) -> SessionId {
    SessionId { home: RegionId::new(1).unwrap(), epoch: Epoch(1), opened: Time(1), random }
}

fn op(random: u64, number: u64) -> SessionOp {
    SessionOp { session: id(random), number, digest: PayloadDigest([number as u8; 16]) }
}

#[test]
fn a_mark_settles_all_below_it_and_forgets_them() {
    let mut sessions = Sessions::default();
    [3, 1, 7].into_iter().for_each(|number| sessions.log(&op(1, number)));
    sessions.mark(id(1), 3);
    assert_eq!(sessions.known(&id(1), 1), Known::Settled);
    assert_eq!(sessions.known(&id(1), 2), Known::Settled);
    assert_eq!(sessions.known(&id(1), 3), Known::Logged(op(1, 3).digest));
    assert_eq!(sessions.known(&id(1), 4), Known::New);
    assert_eq!(sessions.known(&id(2), 1), Known::New);
    sessions.mark(id(1), 2);
    assert_eq!(sessions.known(&id(1), 2), Known::Settled, "a mark never falls");
}

#[test]
fn the_digest_is_that_of_the_table_however_it_came_about() {
    let mut a = Sessions::default();
    [1, 2, 5].into_iter().for_each(|number| a.log(&op(1, number)));
    a.log(&op(2, 1));
    a.mark(id(1), 3);
    let mut b = Sessions::default();
    b.log(&op(2, 1));
    [5, 2, 2, 1].into_iter().for_each(|number| b.log(&op(1, number)));
    assert_ne!(a.digest(), b.digest());
    b.mark(id(1), 2);
    b.mark(id(1), 3);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(Sessions::restore(&a.dump()).digest(), a.digest());
}

#[test]
fn room_is_counted_from_the_mark_that_the_request_brings() {
    let mut sessions = Sessions::default();
    [2, 3, 4].into_iter().for_each(|number| sessions.log(&op(1, number)));
    assert!(sessions.is_full(&id(1), 5, 0, 3));
    assert!(!sessions.is_full(&id(1), 5, 5, 3));
    assert!(!sessions.is_full(&id(1), 1, 1, 3), "the lowest open number is never refused");
    assert!(!sessions.is_full(&id(2), 9, 0, 3));
}
