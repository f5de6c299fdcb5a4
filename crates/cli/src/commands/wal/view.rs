//! [`View`]: a data directory as it is printed.

use serde::Serialize;
use tombolo_causality::{ClusterId, RegionId};
use tombolo_wal::inspect::InspectedLog;
use tombolo_wal::segment::log_dir;
use tombolo_wal::{Damage, DamageKind};

use crate::output::Columns;

/// All that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct View {
    schema: &'static str,
    cluster: String,
    region: u16,
    logs: Vec<LogView>,
    quarantine: Vec<String>,
}

/// One log.
#[derive(Debug, Serialize)]
pub(super) struct LogView {
    shard: u16,
    log: String,
    first_seq: Option<u64>,
    end_seq: u64,
    end_digest: Option<String>,
    batches: u64,
    ops: u64,
    file_bytes: u64,
    segments: Vec<SegmentView>,
    damage: Vec<DamageView>,
}

#[derive(Debug, Serialize)]
struct SegmentView {
    path: String,
    file_bytes: u64,
    has_header: bool,
    runs: Vec<RunView>,
}

/// Consecutive batches that verify.
#[derive(Debug, Serialize)]
struct RunView {
    first_seq: u64,
    from_byte: u64,
    to_byte: u64,
}

#[derive(Debug, Serialize)]
struct DamageView {
    kind: &'static str,
    path: String,
    offset: u64,
    reason: String,
    lost_seqs: Option<(u64, u64)>,
}

impl LogView {
    pub(super) fn new(found: InspectedLog, batches: u64, ops: u64) -> Self {
        let dir = log_dir(found.log);
        let segments: Vec<SegmentView> = found
            .segments
            .into_iter()
            .map(|segment| SegmentView {
                path: segment.path,
                file_bytes: segment.file_bytes,
                has_header: segment.has_header,
                runs: segment.runs.into_iter().map(run).collect(),
            })
            .collect();
        Self {
            shard: found.log.shard.0,
            log: dir.rsplit('/').next().unwrap_or_default().to_owned(),
            first_seq: segments.iter().flat_map(|segment| &segment.runs).map(|run| run.first_seq).min(),
            end_seq: found.end.seq.0,
            end_digest: found.end.digest.map(|digest| digest.to_string()),
            batches,
            ops,
            file_bytes: segments.iter().map(|segment| segment.file_bytes).sum(),
            segments,
            damage: found.damage.into_iter().map(damage).collect(),
        }
    }

    /// Whether something is wrong beyond a tail that a crash tore.
    fn is_damaged(&self) -> bool {
        self.damage.iter().any(|damage| damage.kind != kind_name(DamageKind::Torn))
    }

    fn chain(&self) -> &'static str {
        match self.damage.as_slice() {
            [] => "whole",
            _ if self.is_damaged() => "DAMAGED",
            _ => "torn tail",
        }
    }
}

fn run((first, from, to): (tombolo_causality::Seq, u64, u64)) -> RunView {
    RunView { first_seq: first.0, from_byte: from, to_byte: to }
}

fn damage(damage: Damage) -> DamageView {
    DamageView {
        kind: kind_name(damage.kind),
        path: damage.path,
        offset: damage.offset,
        reason: damage.reason.to_string(),
        lost_seqs: damage.lost.map(|(first, last)| (first.0, last.0)),
    }
}

const fn kind_name(kind: DamageKind) -> &'static str {
    match kind {
        DamageKind::Torn => "torn",
        DamageKind::Suspect => "suspect",
        DamageKind::Rot => "rot",
    }
}

impl View {
    pub(super) fn new(
        cluster: ClusterId,
        region: RegionId,
        logs: Vec<LogView>,
        quarantine: Vec<String>,
    ) -> Self {
        Self {
            schema: "tombolo.wal/v1",
            cluster: cluster.to_string(),
            region: region.get(),
            logs,
            quarantine,
        }
    }

    /// What is wrong, in a sentence; a torn tail is not.
    pub(super) fn problem(&self) -> Option<String> {
        let damaged: Vec<&str> =
            self.logs.iter().filter(|log| log.is_damaged()).map(|log| log.log.as_str()).collect();
        match (damaged.as_slice(), self.quarantine.len()) {
            ([], 0) => None,
            ([], count) => Some(format!("files in quarantine: {count}")),
            (names, _) => Some(format!("damaged logs: {}", names.join(", "))),
        }
    }

    pub(super) fn human(&self, with_segments: bool) -> String {
        let mut columns =
            Columns::new(&["shard>", "log", "seq>", "batches>", "ops>", "bytes>", "segments>", "chain"]);
        for log in &self.logs {
            columns.row([
                log.shard.to_string(),
                log.log.clone(),
                log.end_seq.to_string(),
                log.batches.to_string(),
                log.ops.to_string(),
                log.file_bytes.to_string(),
                log.segments.len().to_string(),
                log.chain().to_owned(),
            ]);
        }
        let mut out = format!("cluster {}, region {}\n\n{}", self.cluster, self.region, columns.render());
        if with_segments {
            out += &format!("\n{}", self.segments());
        }
        for damage in self.logs.iter().flat_map(|log| &log.damage) {
            out += &format!("\n{} at {}:{}\n  {}\n", damage.kind, damage.path, damage.offset, damage.reason);
            if let Some((first, last)) = damage.lost_seqs {
                out += &format!("  lost here: seq {first} to {last}\n");
            }
        }
        if !self.quarantine.is_empty() {
            out += &format!("\nquarantined\n  {}\n", self.quarantine.join("\n  "));
        }
        out
    }

    fn segments(&self) -> String {
        let mut columns =
            Columns::new(&["segment", "bytes>", "header", "batches from seq>", "from byte>", "to byte>"]);
        for segment in self.logs.iter().flat_map(|log| &log.segments) {
            let header = if segment.has_header { "ok" } else { "DAMAGED" };
            let start = [segment.path.clone(), segment.file_bytes.to_string(), header.to_owned()];
            if segment.runs.is_empty() {
                columns.row(start.iter().map(String::as_str).chain(["-", "-", "-"]));
            }
            for run in &segment.runs {
                let place = [run.first_seq, run.from_byte, run.to_byte].map(|number| number.to_string());
                columns.row(start.iter().chain(&place));
            }
        }
        columns.render()
    }
}
