//! `tombolo status`: one region as it sees itself, its peers, its clock, and what it wants an operator to know.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Status, with_schema};
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, print, print_json};
use crate::target::TargetOptions;

const TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  tombolo status --cluster my-cluster --region eu-west
  tombolo status --endpoint http://127.0.0.1:7400 --shards
  tombolo status -o json | jq '.findings[]'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Show every shard
    #[arg(long)]
    shards: bool,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let client = arguments.target.one(TIMEOUT)?;
    let raw: Value = client.get("/v1/status", &[])?;
    if arguments.output.format == Format::Json {
        print_json(&with_schema(raw, "tombolo.status/v1"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = Status::deserialize(&raw).map_err(|error| {
        CliError::new(Exit::Other, format!("{} did not answer as a region does: {error}", client.name()))
    })?;
    print(&human(&status, arguments.shards))?;
    Ok(ExitCode::SUCCESS)
}

fn human(status: &Status, with_shards: bool) -> String {
    let mut out = facts(status);
    if !status.peers.is_empty() {
        out += &format!("\n{}", peers(status));
    }
    if with_shards {
        out += &format!("\n{}", shards(status));
    }
    if !status.quarantine.is_empty() {
        out += &format!("\nquarantined\n  {}\n", status.quarantine.join("\n  "));
    }
    for finding in &status.findings {
        out += &format!("\n{} {}\n  {}\n", finding.severity, finding.code, finding.text);
        if !finding.next.is_empty() {
            out += &format!("  next: {}\n", finding.next);
        }
    }
    out
}

fn facts(status: &Status) -> String {
    let whole = match status.waiting_for.as_slice() {
        _ if status.whole => "yes".to_owned(),
        [] => "no".to_owned(),
        names => format!("no, waiting for {}", names.join(", ")),
    };
    let clock = &status.clock;
    let keys: u64 = status.shards.iter().map(|shard| shard.keys).sum();
    let lines = [
        ("region", status.region.clone()),
        ("cluster", status.cluster.clone()),
        ("node", status.node.clone()),
        ("version", status.version.clone()),
        ("durability", status.durability.clone()),
        ("membership", format!("{}, revision {}", status.standing, status.revision)),
        ("whole", whole),
        ("clock", format!("{:+.1} ms from its peers, bound {} ms", clock.offset_ms, clock.max_drift_ms)),
        ("holds", format!("keys {keys}, shards {}, sessions {}", status.shards.len(), status.sessions)),
    ];
    lines.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}

fn peers(status: &Status) -> String {
    let mut columns =
        Columns::new(&["peer", "state", "rtt>", "lag>", "behind>", "oldest unacked>", "reconnects>"]);
    for peer in &status.peers {
        let state = if peer.paused { format!("{}, paused here", peer.state) } else { peer.state.clone() };
        columns.row([
            peer.region.clone(),
            state,
            format!("{:.1} ms", peer.rtt_ms),
            format!("{:.2} s", peer.lag_seconds),
            format!("{} ops", peer.behind_ops),
            format!("{:.2} s", peer.oldest_unacked_seconds),
            peer.reconnects.to_string(),
        ]);
    }
    columns.render()
}

fn shards(status: &Status) -> String {
    let mut columns = Columns::new(&["shard>", "keys>", "durable>", "logs>", "digest"]);
    for shard in &status.shards {
        columns.row([
            shard.shard.to_string(),
            shard.keys.to_string(),
            shard.durable.to_string(),
            shard.version_vector.len().to_string(),
            shard.digest.chars().take(16).collect(),
        ]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_shows_peers_shards_and_findings_with_their_next_command() {
        let status = Status::deserialize(json!({
            "cluster": "c1", "region": "eu-west", "node": "eu-west/0a", "version": "0.1.0", "durability": "sync",
            "revision": 3, "standing": "member",
            "shards": [{"shard": 0, "version_vector": {"eu-west/0a": 7}, "digest": "00112233445566778899",
                        "durable": 7, "keys": 3}],
            "peers": [{"region": "us-east", "state": "ok", "rtt_ms": 80.04, "lag_seconds": 0.0, "behind_ops": 0,
                       "oldest_unacked_seconds": 0.0, "reconnects": 1, "paused": true}],
            "quarantine": [], "clock": {"offset_ms": -0.4, "max_drift_ms": 500}, "whole": false,
            "waiting_for": ["ap-south"], "sessions": 2, "a_field_of_tomorrow": 1,
            "findings": [{"code": "peer_unreachable", "severity": "warning", "text": "ap-south is silent",
                          "next": "tombolo lag"}],
        }))
        .unwrap();
        insta::assert_snapshot!(human(&status, true), @r"
        region      eu-west
        cluster     c1
        node        eu-west/0a
        version     0.1.0
        durability  sync
        membership  member, revision 3
        whole       no, waiting for ap-south
        clock       -0.4 ms from its peers, bound 500 ms
        holds       keys 3, shards 1, sessions 2

        PEER     STATE                RTT     LAG  BEHIND  OLDEST UNACKED  RECONNECTS
        us-east  ok, paused here  80.0 ms  0.00 s   0 ops          0.00 s           1

        SHARD  KEYS  DURABLE  LOGS  DIGEST
            0     3        7     1  0011223344556677

        warning peer_unreachable
          ap-south is silent
          next: tombolo lag
        ");
    }
}
