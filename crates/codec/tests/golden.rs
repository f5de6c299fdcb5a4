//! The bytes of every format, pinned. A dump changes only together with its format's version number.

mod sample;

use std::fmt::Write as _;

use sample::{CLUSTER, SHARD, batch, batch_bytes, checkpoint, session, stamp};
use tombolo_causality::{Epoch, LogId, RegionId, Seq, Time};
use tombolo_codec::{
    AwaitScope, CellName, Checkpoint, ClientAnswer, ClientRequest, Entries, Kind, LEAVES_COUNT, LeafAsk,
    LeafSums, PeerMessage, Position, Reject, RejectCode, SealKey, Section, SessionToken, Token, WireOp,
    WireVerb, WriteDone,
};

fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, row) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            row.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' }).collect();
        writeln!(out, "{:06x}  {:47}  {text}", line * 16, hex.join(" ")).expect("a string takes all");
    }
    out
}

fn name(cell: CellName<'_>) -> String {
    format!("{}/{}/{}", cell.tenant.0, cell.kind.name(), String::from_utf8_lossy(cell.key))
}

#[test]
fn the_bytes_of_a_batch_are_those_of_version_2() {
    insta::assert_snapshot!("batch_v2_bytes", dump(&batch_bytes()));
}

#[test]
fn the_records_of_a_batch_read_as_they_were_written() {
    let batch = batch();
    let records = batch.records();
    let mut out = format!("{:#?}\n", batch.header());
    for add in records.adds() {
        let (cell, generation) = (name(add.cell), add.generation);
        writeln!(out, "add {cell} +{} -{} under {generation:?}", add.positive, add.negative).unwrap();
    }
    for write in records.writes() {
        let value = write.value.map(String::from_utf8_lossy);
        let (cell, stamp, expiry) = (name(write.cell), write.stamp, write.expires_at);
        writeln!(out, "write {cell} {value:?} at {stamp} until {expiry:?}").unwrap();
    }
    records.ops().for_each(|op| writeln!(out, "{op:?}").unwrap());
    records.marks().for_each(|mark| writeln!(out, "mark {mark:?}").unwrap());
    for conditional in records.conditionals() {
        writeln!(out, "conditional {:?}", conditional.op).unwrap();
        for (cell, generation, delta) in conditional.adds {
            writeln!(out, "  {delta:+} to {} under {generation:?}", name(cell)).unwrap();
        }
    }
    records.seals().for_each(|seal| writeln!(out, "{seal:?}").unwrap());
    records.expires().for_each(|expire| writeln!(out, "{expire:?}").unwrap());
    records.stables().for_each(|stable| writeln!(out, "{stable:?}").unwrap());
    insta::assert_snapshot!("batch_v2_records", out);
}

#[test]
fn the_bytes_of_a_checkpoint_are_those_of_version_2() {
    insta::assert_snapshot!("checkpoint_v2_bytes", dump(&checkpoint().encode(CLUSTER, SHARD).unwrap()));
}

#[test]
fn tokens_and_session_ids_keep_their_text() {
    let key = SealKey::new([7; 32]);
    let log = |shard| LogId { shard, region: RegionId::new(2).unwrap(), epoch: Epoch(0x77) };
    let positions = vec![Position { log: log(SHARD), seq: Seq(42) }];
    insta::assert_snapshot!(Token { positions, time: Time(81) }.encode(&key), @"AVEAAAAAAAAAAgB3AAAAAAAAAAAAAAAAAAAAAQAHACoAAAAAAAAAMLjiJcTtMKFYoE2cMgGhZQ");
    insta::assert_snapshot!(SessionToken(session(1)).encode(&key), @"gQMAVQAAAAAAAAAAAAAAAAAAAIQDAAAAAAAAAQAAAAAAAAAK7E8WVLYfDPIqhI3Pbk0t");
}

#[test]
fn the_frames_of_clients_and_peers_keep_their_bytes() {
    let ops = vec![
        WireOp { key: b"views:1".to_vec(), verb: WireVerb::Add(-5) },
        WireOp {
            key: b"profile:1".to_vec(),
            verb: WireVerb::Set {
                value: b"Ada".to_vec(),
                expires_at: Some(Time(99)),
                stamp: Some(stamp(80)),
            },
        },
        WireOp { key: b"stock".to_vec(), verb: WireVerb::Delete { kind: Some(Kind::Counter), stamp: None } },
    ];
    let write = ClientRequest::Write {
        session: Some(("the session".into(), 7, 6)),
        retry: true,
        after: Time(3),
        ops,
    };
    let read =
        ClientRequest::Read { keys: vec![b"k".to_vec()], after: Some("token".into()), timeout_ms: 1_000 };
    let wait =
        ClientRequest::Await { token: "token".into(), scope: AwaitScope::AtLeast(2), timeout_ms: 1_000 };
    let done = ClientAnswer::Written(WriteDone {
        token: "token".into(),
        replayed: true,
        conditional: false,
        stamps: vec![None, Some(stamp(80)), None],
    });
    let mut refusal = Reject::new(RejectCode::StampBehind, "later").retry_after_ms(5);
    refusal.stamp_needed = Some(stamp(90));
    let log = LogId { shard: SHARD, region: RegionId::new(2).unwrap(), epoch: Epoch(9) };
    let subscribe = PeerMessage::Subscribe { log, from: Seq(8) };
    let out = format!(
        "write\n{}\nread\n{}\nawait\n{}\nwritten\n{}\nrejected\n{}\nsubscribe\n{}",
        dump(&write.encode(1)),
        dump(&read.encode(2)),
        dump(&wait.encode(3)),
        dump(&done.encode(4)),
        dump(&ClientAnswer::Rejected(refusal).encode(5)),
        dump(&subscribe.encode()),
    );
    insta::assert_snapshot!("frames_v1_bytes", out);
}

#[test]
fn what_regions_send_of_their_states_keeps_its_bytes() {
    let Checkpoint { cells, sessions, conditionals, .. } = checkpoint();
    let entries = Entries { cells, sessions, conditionals };
    let sums = Section::ALL.map(|section| {
        let mut sums = vec![0; LEAVES_COUNT];
        sums[9] = 0xa_bcde;
        sums[4_000] = 1;
        let sums = if section == Section::Counters { sums } else { Vec::new() };
        LeafSums { section, entries_count: 300, total: 0x1_0000_0007, sums }
    });
    let (shard, cut, section) = (SHARD, 3, Section::Counters);
    let head = Checkpoint::default();
    let leaves = vec![LeafAsk { leaf: 9, known: vec![0xabc, 5] }, LeafAsk { leaf: 4_000, known: Vec::new() }];
    let (unknown, rest, sent) = (vec![0, 300], vec![4_000], vec![5]);
    let out = format!(
        "cut\n{}\nentries asked\n{}\nentries\n{}",
        dump(&PeerMessage::Cut { shard, cut, head, sums: Some(sums.to_vec()) }.encode()),
        dump(&PeerMessage::EntriesAsk { shard, cut, section, leaves }.encode()),
        dump(&PeerMessage::Entries { shard, cut, section, entries, unknown, rest, sent }.encode()),
    );
    insta::assert_snapshot!("difference_v4_bytes", out);
}
