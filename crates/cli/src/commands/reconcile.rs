//! `tombolo reconcile --plan`: what brings each region to what every other one holds. It only shows: regions reconcile
//! by themselves.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::ask_all;
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, note, print, print_json};
use crate::target::TargetOptions;

const TIMEOUT: Duration = Duration::from_secs(15);
const PATH: &str = "/v1/admin/reconcile";

const EXAMPLES: &str = "\
Examples:
  tombolo reconcile --plan --cluster my-cluster
  tombolo reconcile --plan -o json | jq '.regions[].plans[] | select(.plan != \"in_sync\")'

in_sync     nothing is lacking
resume      batches are lacking that the other region keeps
difference  batches are lacking that no region in reach keeps: the entries that differ are fetched
snapshot    the same for a region that holds nothing yet: all entries are fetched

Regions do what the plan says by themselves. Exits 3 if a region cannot be reached; the others are shown.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Show the plan; there is nothing else to be done
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

/// A region's answer, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plans {
    region: String,
    plans: Vec<ShardPlan>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ShardPlan {
    shard: u16,
    peer: String,
    connected: bool,
    plan: String,
    logs: Vec<Gap>,
    progress: Option<Progress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gap {
    log: String,
    from: u64,
    through: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    entries: u64,
    leaves_left: usize,
    installing: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    regions: &'a [Value],
    unreachable: Vec<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    if !arguments.plan {
        note("regions reconcile by themselves; this is the plan they follow");
    }
    let clients = arguments.target.every_region_as_admin(TIMEOUT)?;
    let (mut regions, mut unreachable) = (Vec::new(), Vec::new());
    for answer in ask_all(&clients, |client| client.get::<Value>(PATH, &[])) {
        match answer {
            Ok(plans) => regions.push(plans),
            Err(error) if error.is_unreachable() => unreachable.push(error),
            Err(error) => return Err(error),
        }
    }
    match arguments.output.format {
        Format::Json => {
            let unreachable = unreachable.iter().map(CliError::text).collect();
            print_json(&Body { schema: "tombolo.reconcile/v1", regions: &regions, unreachable })?;
        }
        Format::Human => {
            let read = |plans: &Value| {
                Plans::deserialize(plans).map_err(|error| {
                    CliError::new(Exit::Other, format!("a region did not answer as one does: {error}"))
                })
            };
            print(&human(&regions.iter().map(read).collect::<Result<Vec<_>, _>>()?))?;
        }
    }
    unreachable.into_iter().next().map_or(Ok(ExitCode::SUCCESS), Err)
}

fn human(regions: &[Plans]) -> String {
    let mut columns = Columns::new(&["region", "from", "shard>", "plan", "what"]);
    for Plans { region, plans } in regions {
        let mut peers: Vec<&str> = plans.iter().map(|plan| plan.peer.as_str()).collect();
        peers.sort_unstable();
        peers.dedup();
        for peer in peers {
            let of_peer = || plans.iter().filter(|plan| plan.peer == peer);
            let away = if of_peer().all(|plan| plan.connected) { "" } else { "not connected" };
            let equal = of_peer().filter(|plan| plan.plan == "in_sync").count();
            if equal > 0 {
                let count =
                    if equal == of_peer().count() { "all".to_owned() } else { format!("{equal} of them") };
                columns.row([region, peer, &count, "in_sync", away]);
            }
            for plan in of_peer().filter(|plan| plan.plan != "in_sync") {
                columns.row([region, peer, &plan.shard.to_string(), &plan.plan, &what(plan)]);
            }
        }
    }
    columns.render()
}

fn what(plan: &ShardPlan) -> String {
    let gap = |gap: &Gap| {
        let (region, epoch) = gap.log.split_once('/').unwrap_or((&gap.log, ""));
        let epoch: String = epoch.chars().take(8).collect();
        format!("{region}/{epoch} {} to {}", gap.from, gap.through)
    };
    let mut parts: Vec<String> = plan.logs.iter().map(gap).collect();
    match &plan.progress {
        Some(Progress { entries, installing: true, .. }) => {
            parts.push(format!("{entries} entries came, being made durable"));
        }
        Some(Progress { entries, leaves_left, .. }) => {
            parts.push(format!("{entries} entries came, {leaves_left} leaves to come"));
        }
        None => {}
    }
    if !plan.connected {
        parts.push("not connected".to_owned());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_shown_by_peer_and_shards_that_lack_something_on_their_own() {
        let plans = Plans::deserialize(json!({"schema": "tombolo.reconcile/v1", "region": "eu", "plans": [
            {"shard": 0, "peer": "us", "connected": true, "plan": "in_sync", "logs": [], "progress": null},
            {"shard": 1, "peer": "us", "connected": true, "plan": "resume", "progress": null,
             "logs": [{"log": "us/0123456789abcdef", "from": 5, "through": 9}]},
            {"shard": 0, "peer": "ap", "connected": false, "plan": "in_sync", "logs": [], "progress": null},
            {"shard": 1, "peer": "ap", "connected": true, "plan": "snapshot",
             "logs": [{"log": "ap/fedcba9876543210", "from": 1, "through": 70}],
             "progress": {"entries": 400, "leaves_left": 12, "installing": false}},
        ]}))
        .unwrap();
        insta::assert_snapshot!(human(&[plans]), @r"
        REGION  FROM      SHARD  PLAN      WHAT
        eu      ap    1 of them  in_sync   not connected
        eu      ap            1  snapshot  ap/fedcba98 1 to 70; 400 entries came, 12 leaves to come
        eu      us    1 of them  in_sync
        eu      us            1  resume    us/01234567 5 to 9
        ");
    }
}
