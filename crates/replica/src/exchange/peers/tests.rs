//! From whom each log is fetched.

use super::*;
use tombolo_codec::Roster;

fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

fn log(id: u16, epoch: u128) -> LogName {
    (region(id), Epoch(epoch))
}

/// Peers 2 and 3 of region 1, both answered, holding what is given.
fn peers(held: [&[(LogName, u64)]; 2]) -> Peers {
    let mut peers = Peers::new(&Roster::of([region(1), region(2), region(3)]), region(1));
    for (id, held) in [2, 3].into_iter().zip(held) {
        let peer = peers.peers.get_mut(&region(id)).unwrap();
        peer.epoch = Some(Epoch(u128::from(id) * 10));
        peer.is_answered = true;
        held.iter().for_each(|&((writer, epoch), seq)| peer.applied.raise(writer, epoch, Seq(seq)));
    }
    peers
}

fn plan(peers: &Peers, blocked: &[(LogName, Blocked)], name: LogName, have: u64) -> Option<RegionId> {
    let received = |log: LogName| Some(if log == name { Seq(have) } else { Seq::ZERO });
    peers.plan(log(1, 1), blocked, received).get(&name).copied()
}

#[test]
fn a_log_comes_from_its_living_writer_even_if_another_has_more_of_it() {
    let peers = peers([&[], &[(log(2, 20), 9)]]);
    assert_eq!(plan(&peers, &[], log(2, 20), 0), Some(region(2)));
    assert_eq!(plan(&peers, &[], log(1, 1), 0), None, "its own log it writes itself");
}

#[test]
fn a_log_whose_writer_is_gone_comes_from_whoever_has_more_than_what_is_here() {
    let old = log(2, 19);
    let mut peers = peers([&[(old, 4)], &[(old, 7)]]);
    assert_eq!(plan(&peers, &[], old, 3), Some(region(3)));
    assert_eq!(plan(&peers, &[], old, 7), None);
    // Who is asked now goes on being asked while it has more, and no longer.
    peers.sources.insert(old, region(2));
    assert_eq!(plan(&peers, &[], old, 3), Some(region(2)));
    assert_eq!(plan(&peers, &[], old, 4), Some(region(3)));
}

#[test]
fn what_a_seal_waits_for_comes_from_whoever_applied_the_seal() {
    let (sealed, by, above) = (log(2, 18), log(2, 19), log(2, 20));
    let waits = |on, at| Blocked { on, end: Seq(9), at: Seq(at) };
    let blocked = [(by, waits(sealed, 3))];
    let mut peers = peers([&[], &[(sealed, 5), (by, 3)]]);
    peers.sources.insert(sealed, region(2));
    assert_eq!(plan(&peers, &blocked, sealed, 5), Some(region(3)));
    peers.peers.get_mut(&region(3)).unwrap().applied = VersionVector::new();
    assert_eq!(plan(&peers, &blocked, sealed, 5), Some(region(2)), "nobody better is known");
    // The log of the seal was taken over in turn: its living writer holds all of it.
    peers.sources.insert(sealed, region(3));
    let blocked = [(by, waits(sealed, 3)), (above, waits(by, 1))];
    assert_eq!(plan(&peers, &blocked, sealed, 5), Some(region(2)));
}
