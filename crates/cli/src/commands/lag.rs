//! `tombolo lag`: how far every region is behind every other, as each source sees it.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::duration;
use crate::client::{Client, Peer, ShardLag, Status, ask_all};
use crate::error::CliError;
use crate::output::{Columns, Format, OutputOption, note, print, print_json};
use crate::target::TargetOptions;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Faster shows nothing more and costs the regions.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

const EXAMPLES: &str = "\
Examples:
  tombolo lag --cluster my-cluster
  tombolo lag --watch
  tombolo lag --watch --interval 5s -o json | jq -c '.pairs[] | select(.lag_seconds > 2)'

Each line is one source and one destination. Lag is the age of the source's oldest write that the destination has not \
applied: 0 if it has all, also when nothing is written. With --watch and -o json every round is one line.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Show it again and again, until interrupted
    #[arg(long)]
    watch: bool,
    /// How often
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse, requires = "watch")]
    interval: Duration,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

#[derive(Serialize)]
struct Body {
    schema: &'static str,
    pairs: Vec<Pair>,
    unreachable: Vec<Unreachable>,
}

#[derive(Serialize)]
struct Pair {
    from: String,
    to: String,
    #[serde(flatten)]
    peer: PairPeer,
}

/// A peer without its name, which is the pair's `to`.
#[derive(Serialize)]
struct PairPeer {
    state: String,
    lag_seconds: f64,
    behind_ops: u64,
    oldest_unacked_seconds: f64,
    rtt_ms: f64,
    reconnects: u64,
    /// The end that limits, and what shows that; where the state is ok, none.
    limit: Option<String>,
    evidence: String,
    /// Shards in which something is lacking.
    shards: Vec<ShardLag>,
}

#[derive(Serialize)]
struct Unreachable {
    region: String,
    text: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let clients = arguments.target.all(TIMEOUT)?;
    if !arguments.watch {
        show(&look(&clients)?, arguments.output.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_screen = std::io::stdout().is_terminal() && arguments.output.format == Format::Human;
    loop {
        // A region that is gone may come back while somebody watches.
        match look(&clients) {
            Ok(body) if arguments.output.format == Format::Json => {
                print(&(serde_json::to_string(&body).expect("plain JSON") + "\n"))?;
            }
            Ok(body) => {
                print(if is_screen { CLEAR } else { "" })?;
                show(&body, Format::Human)?;
            }
            Err(error) if error.is_unreachable() => note(error.text()),
            Err(error) => return Err(error),
        }
        std::thread::sleep(arguments.interval.max(INTERVAL_MIN));
    }
}

/// Asks all regions once.
///
/// Errors: what the first region said, if none answered; a refusal at once.
fn look(clients: &[Client]) -> Result<Body, CliError> {
    let mut body = Body { schema: "tombolo.lag/v1", pairs: Vec::new(), unreachable: Vec::new() };
    let mut first_error = None;
    let mut answers_count = 0;
    for (client, answer) in
        clients.iter().zip(ask_all(clients, |client| client.get::<Status>("/v1/status", &[])))
    {
        match answer {
            Ok(status) => {
                answers_count += 1;
                body.pairs.extend(status.peers.into_iter().map(|peer| pair(&status.region, peer)));
            }
            Err(error) if error.is_unreachable() => {
                let (region, text) = (client.name().to_owned(), error.text().to_owned());
                body.unreachable.push(Unreachable { region, text });
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match first_error {
        Some(error) if answers_count == 0 => Err(error),
        _ => Ok(body),
    }
}

fn pair(from: &str, peer: Peer) -> Pair {
    let Peer { region, state, rtt_ms, lag_seconds, behind_ops, oldest_unacked_seconds, .. } = peer;
    let Peer { reconnects, limit, evidence, shards, .. } = peer;
    let to = region;
    let peer = PairPeer {
        state,
        lag_seconds,
        behind_ops,
        oldest_unacked_seconds,
        rtt_ms,
        reconnects,
        limit,
        evidence,
        shards,
    };
    Pair { from: from.to_owned(), to, peer }
}

fn show(body: &Body, format: Format) -> Result<(), CliError> {
    if format == Format::Json {
        return print_json(body);
    }
    for unreachable in &body.unreachable {
        note(&unreachable.text);
    }
    print(&human(body))
}

fn human(body: &Body) -> String {
    let mut columns = Columns::new(&["from", "to", "state", "lag>", "behind>", "rtt>", "limited by"]);
    for Pair { from, to, peer } in &body.pairs {
        columns.row([
            from.clone(),
            to.clone(),
            peer.state.clone(),
            format!("{:.2} s", peer.lag_seconds),
            format!("{} ops", peer.behind_ops),
            format!("{:.1} ms", peer.rtt_ms),
            peer.limit.as_ref().map_or_else(|| "-".to_owned(), |limit| format!("{limit}: {}", peer.evidence)),
        ]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_named_from_its_source_to_its_destination() {
        let peer = Peer {
            region: "us-east".to_owned(),
            state: "slow".to_owned(),
            lag_seconds: 3.5,
            limit: Some("network".to_owned()),
            evidence: "shard 3: 9 bytes on their way".to_owned(),
            ..Peer::default()
        };
        let pairs = vec![pair("eu-west", peer)];
        let text = human(&Body { schema: "", pairs, unreachable: Vec::new() });
        insta::assert_snapshot!(text, @r"
        FROM     TO       STATE     LAG  BEHIND     RTT  LIMITED BY
        eu-west  us-east  slow   3.50 s   0 ops  0.0 ms  network: shard 3: 9 bytes on their way
        ");
    }
}
