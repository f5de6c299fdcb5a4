//! `tombolo region`: who belongs to the cluster; adds, drains and removes regions while all others go on.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use tombolo_causality::RegionId;
use tombolo_codec::Applied;
use tombolo_daemon::config::{self, AddOptions};

use super::init;
use crate::client::with_schema;
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, note, print, print_json};
use crate::target::TargetOptions;

const TIMEOUT: Duration = Duration::from_secs(30);
const PATH: &str = "/v1/admin/regions";

const LIST_EXAMPLES: &str = "\
Examples:
  tombolo region list --cluster my-cluster
  tombolo region list -o json | jq '.regions[] | select(.standing == \"draining\")'";

const ADD_EXAMPLES: &str = "\
Examples:
  tombolo region add sa-east --cluster my-cluster
  tombolo region add sa-east --base-port 7430 --advertise sa-east.example.net:7433
  tombolo serve --cluster my-cluster --region sa-east

Writes the region's file and certificate into the cluster directory, and tells the running cluster. A removed region \
may come back only under a new name and id.";

const DRAIN_EXAMPLES: &str = "\
Examples:
  tombolo region drain ap-south
  tombolo region list                      tells when every other region holds all it wrote
  tombolo region drain ap-south --undo     have it take writes again

Any region may be asked to have another one drain. Only the region itself may be asked to undo it, and is, unless \
--region or --endpoint names another one: that one refuses.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  tombolo region drain ap-south && tombolo region remove ap-south
  tombolo region remove ap-south --dead                  says what nobody else holds, and changes nothing
  tombolo region remove ap-south --dead --accept-risk    removes a region that is gone for good

A region that lives leaves by its own word: it is the one that is asked, unless --region or --endpoint names another \
one, which refuses. With --dead any other region is asked.

Exits 6 if something has to hold first. What the other regions hold of the removed one's writes stays and counts once; \
it may never come back under its name.";

#[derive(Debug, Subcommand)]
pub(super) enum Subcommands {
    /// List every region that is, or was, a member
    List(ListArguments),
    /// Declare a new region and tell the running cluster
    Add(AddArguments),
    /// Have a region take no new writes, before it is removed
    Drain(DrainArguments),
    /// Remove a region for ever
    Remove(RemoveArguments),
}

impl Subcommands {
    pub(super) fn format(&self) -> Format {
        match self {
            Self::List(arguments) => arguments.common.output.format,
            Self::Add(arguments) => arguments.common.output.format,
            Self::Drain(arguments) => arguments.common.output.format,
            Self::Remove(arguments) => arguments.common.output.format,
        }
    }
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct ListArguments {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(super) struct AddArguments {
    /// The new region's name
    name: String,
    /// Its id, 1 to 1023, that no region ever had [default: the next one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1023))]
    id: Option<u16>,
    /// Its HTTP port; RESP, QUIC and peer follow [default: the next ones that are free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// Where the other regions reach it [default: this machine]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = DRAIN_EXAMPLES)]
pub(super) struct DrainArguments {
    /// The region's name
    name: String,
    /// Take it back
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub(super) struct RemoveArguments {
    /// The region's name
    name: String,
    /// It is gone for good, with what no other region holds
    #[arg(long)]
    dead: bool,
    /// Go on although acknowledged writes may be lost with it
    #[arg(long, requires = "dead")]
    accept_risk: bool,
    #[command(flatten)]
    common: Common,
}

/// The region's answer, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    revision: u64,
    changed: bool,
    regions: Vec<Entry>,
    unacknowledged: Vec<Gap>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    id: u16,
    name: String,
    advertise: String,
    standing: String,
    link: String,
    revision: Option<u64>,
    drained: Option<bool>,
    shards_without_heir: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gap {
    shard: u16,
    heard: u64,
    held: u64,
}

pub(super) fn run(command: &Subcommands) -> Result<ExitCode, CliError> {
    match command {
        Subcommands::List(arguments) => {
            let raw = arguments.common.target.admin(TIMEOUT)?.get(PATH, &[])?;
            show(&arguments.common, raw)
        }
        Subcommands::Add(arguments) => add(arguments),
        Subcommands::Drain(DrainArguments { name, undo, common }) => {
            let body = json!({ "action": "drain", "name": name, "undo": undo });
            if *undo {
                change_at(name, common, &body, &format!("tombolo region drain {name} --undo"))
            } else {
                change(&common.target, common, &body)
            }
        }
        Subcommands::Remove(RemoveArguments { name, dead, accept_risk, common }) => {
            let body = json!({ "action": "remove", "name": name, "dead": dead, "accept_risk": accept_risk });
            let done = if *dead {
                change(&common.target.or_first(|region| region != name)?, common, &body)?
            } else {
                change_at(name, common, &body, &format!("tombolo region remove {name}"))?
            };
            let stop = if *dead {
                ""
            } else {
                "stop its daemon once `tombolo region list` of the others shows it removed\n  "
            };
            note(&format!(
                "\nnext:\n  {stop}take the [[region]] `{name}` out of cluster.toml on every machine, with regions/{name}.toml"
            ));
            Ok(done)
        }
    }
}

fn add(arguments: &AddArguments) -> Result<ExitCode, CliError> {
    let AddArguments { name, id: given_id, base_port, advertise, common } = arguments;
    let dir = common.target.cluster_dir()?;
    let client = common.target.admin(TIMEOUT)?;
    let known: Body = client.get(PATH, &[])?;
    let next = known.regions.iter().map(|entry| entry.id).max().unwrap_or_default().saturating_add(1);
    let id =
        known.regions.iter().find(|entry| entry.name == *name).map_or(given_id.unwrap_or(next), |it| it.id);
    let region = RegionId::new(id)
        .map_err(|_| CliError::new(Exit::Conflict, "every region id up to 1023 was used"))?;
    // Refused before anything is written: a file of a region that can never be would be in the way.
    if known
        .regions
        .iter()
        .any(|entry| (entry.name == *name || entry.id == id) && entry.standing == "removed")
    {
        let text = format!(
            "region `{name}` or id {id} was removed and may return only as new: under another name and id"
        );
        return Err(CliError::new(Exit::Conflict, text).code("precondition"));
    }
    // The running regions may know of more than these files.
    let clash = known.regions.iter().find_map(|entry| match (entry.name == *name, entry.id == id) {
        (true, _) if given_id.is_some_and(|given| given != entry.id) => {
            Some(format!("region `{name}` is a member already, with id {}", entry.id))
        }
        (true, _) if advertise.as_ref().is_some_and(|given| *given != entry.advertise) => {
            Some(format!("region `{name}` is a member already, reached at {}", entry.advertise))
        }
        (false, true) => {
            Some(format!("id {id} is region `{}`'s; an id belongs to one region for ever", entry.name))
        }
        _ => None,
    });
    if let Some(text) = clash {
        return Err(CliError::new(Exit::Conflict, text).code("precondition").applied(Applied::No));
    }
    let options = AddOptions {
        dir: dir.clone(),
        name: name.clone(),
        id: region,
        base_port: *base_port,
        advertise: advertise.clone(),
    };
    config::add_region(options).map_err(|error| init::failed(error, &dir))?;
    let config =
        config::ClusterConfig::load(&dir).map_err(|errors| crate::target::config_invalid(&errors, &dir))?;
    let added = config.region(name).ok_or_else(|| {
        CliError::new(Exit::ConfigInvalid, format!("region `{name}` is not in the files it was written to"))
    })?;
    let body = json!({ "action": "add", "name": name, "id": added.id.get(), "advertise": added.advertise });
    let done = change(&common.target, common, &body)?;
    note(&format!("\nnext:\n  tombolo serve --cluster {} --region {name}", dir.display()));
    Ok(done)
}

/// What only the region itself may be asked, by this command: it is, unless another one is named.
fn change_at(name: &str, common: &Common, body: &Value, command: &str) -> Result<ExitCode, CliError> {
    let client = common.target.or_first(|region| region == name)?.admin(TIMEOUT)?;
    let is_other = client.region().is_some_and(|region| region != name);
    let raw = client.write(PATH, body).map_err(|error: CliError| {
        if is_other && error.is_conflict() {
            error.next(format!("{command} --region {name}"))
        } else if !is_other && error.is_unreachable() {
            error.next(format!("start it, or, if it is gone for good: tombolo region remove {name} --dead"))
        } else {
            error
        }
    })?;
    show(common, raw)
}

fn change(target: &TargetOptions, common: &Common, body: &Value) -> Result<ExitCode, CliError> {
    let raw = target.admin(TIMEOUT)?.write(PATH, body)?;
    show(common, raw)
}

fn show(common: &Common, raw: Value) -> Result<ExitCode, CliError> {
    if common.output.format == Format::Json {
        print_json(&with_schema(raw, "tombolo.regions/v1"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let body = Body::deserialize(&raw).map_err(|error| {
        CliError::new(Exit::Other, format!("the region did not answer as one does: {error}"))
    })?;
    print(&human(&body))?;
    Ok(ExitCode::SUCCESS)
}

fn human(body: &Body) -> String {
    let mut columns = Columns::new(&["region", "id>", "standing", "link", "revision>", "address"]);
    for entry in &body.regions {
        let standing = match (entry.drained, entry.shards_without_heir) {
            (Some(true), _) => "draining, all others hold what it wrote".to_owned(),
            (Some(false), _) => "draining, not all others hold what it wrote yet".to_owned(),
            (None, 0) => entry.standing.clone(),
            (None, shards) => format!("{}, being taken over in {shards} shards", entry.standing),
        };
        columns.row([
            entry.name.clone(),
            entry.id.to_string(),
            standing,
            entry.link.clone(),
            entry.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()),
            entry.advertise.clone(),
        ]);
    }
    let changed = if body.changed { ", changed" } else { "" };
    let mut out = format!("{}\nrevision {}{changed}\n", columns.render(), body.revision);
    for Gap { shard, heard, held } in &body.unacknowledged {
        out += &format!("lost of shard {shard}: batches {} to {heard} at most\n", held + 1);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_shown_with_what_a_removal_may_have_lost() {
        let body = Body::deserialize(json!({
            "schema": "tombolo.regions/v1", "revision": 6, "changed": true,
            "regions": [
                {"id": 1, "name": "eu-west", "advertise": "eu:1", "standing": "member", "link": "self", "revision": 6},
                {"id": 2, "name": "us-east", "advertise": "us:1", "standing": "draining", "link": "up", "revision": 5,
                 "drained": false},
                {"id": 3, "name": "ap-south", "advertise": "ap:1", "standing": "removed", "link": "down",
                 "revision": null, "drained": null, "shards_without_heir": 2},
            ],
            "unacknowledged": [{"shard": 4, "heard": 12, "held": 9}],
        }))
        .unwrap();
        insta::assert_snapshot!(human(&body), @r"
        REGION    ID  STANDING                                         LINK  REVISION  ADDRESS
        eu-west    1  member                                           self         6  eu:1
        us-east    2  draining, not all others hold what it wrote yet  up           5  us:1
        ap-south   3  removed, being taken over in 2 shards            down         -  ap:1

        revision 6, changed
        lost of shard 4: batches 10 to 12 at most
        ");
    }
}
