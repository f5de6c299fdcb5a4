//! `tombolo verify`: proves that all regions hold the same while clients write, names what does not, and mends it.
//!
//! Each region compares itself with the next one, entry by entry (`/v1/admin/verify`): so each audits its own memory,
//! and of three regions the one that is wrong shows. The digests are compared once more at the end: equal vectors must
//! show equal digests, without exception. Who is wrong is judged in `verify/survey.rs`.

mod comparison;
mod survey;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use self::comparison::{Comparison, ShardComparison, Verdict, compare};
use self::survey::{Survey, Verification};
use super::duration;
use crate::client::{Client, ShardDigest, ask_all};
use crate::error::{CliError, Exit};
use crate::output::{Columns, Format, OutputOption, note, print, print_json};
use crate::target::TargetOptions;

const PATH: &str = "/v1/admin/verify";
/// How often what was found is mended and looked at again.
const PASSES_MAX: usize = 5;

const EXAMPLES: &str = "\
Examples:
  tombolo verify --cluster my-cluster
  tombolo verify --cluster my-cluster -o json
  tombolo verify --cluster my-cluster --repair
  tombolo verify --cluster two-regions --repair --trust eu-west

Clients may go on writing. Entries that change all the time while they are compared are shown to be consistent, and \
counted as in motion. With --repair, entries that are damaged, and only those, are replaced by what another region holds; \
of two regions that differ somebody has to say which one is right.

Exits 0 if all regions are equal, or were mended; 8 if something is damaged or could not be compared; 3 if a region \
cannot be reached.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How long each comparison may take
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    timeout: Duration,
    /// Replace what is damaged by what another region holds
    #[arg(long)]
    repair: bool,
    /// The region to believe where two differ and nothing says which is wrong
    #[arg(long, value_name = "NAME", requires = "repair")]
    trust: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputOption,
    #[command(flatten)]
    target: TargetOptions,
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    equal: bool,
    waited_ms: u64,
    mended: usize,
    regions: &'a [String],
    #[serde(flatten)]
    survey: &'a Survey,
    shards: &'a [ShardComparison],
    unreachable: Vec<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let mut clients = arguments.target.every_region_as_admin(arguments.timeout)?;
    let started = Instant::now();
    let (before, unreachable) = look(&clients)?;
    clients.retain(|client| before.regions.iter().any(|region| region == client.name()));
    if let Some(trusted) = &arguments.trust
        && !before.regions.contains(trusted)
    {
        let text = format!("`{trusted}` is no region in reach; there are {}", before.regions.join(", "));
        return Err(CliError::new(Exit::Usage, text));
    }
    if clients.len() < 2 {
        return Err(unreachable.into_iter().next().unwrap_or_else(|| {
            CliError::new(Exit::CheckFailed, "there is one region, and nothing to compare it with")
        }));
    }
    let (mut verifications, mut mended) = (compare_all(&clients)?, 0);
    let mut survey = Survey::of(&verifications);
    for _ in 0..PASSES_MAX {
        let repairs = survey.repairs(&before.regions, arguments.trust.as_deref());
        if !arguments.repair || repairs.is_empty() {
            break;
        }
        for ((wrong, right), entries) in &repairs {
            note(&format!("mending {} entries of {wrong} by {right}", entries.len()));
            let client = clients.iter().find(|client| client.name() == wrong);
            let client = client.expect("it was compared");
            let body = json!({ "peers": [right], "mend": entries });
            mended += client.write::<Verification>(PATH, &body)?.mended;
        }
        verifications = compare_all(&clients)?;
        survey = Survey::of(&verifications);
    }
    let (comparison, _) = look(&clients)?;
    let is_equal = survey.is_equal() && comparison.verdict() != Verdict::Different && unreachable.is_empty();
    match arguments.output.format {
        Format::Json => print_json(&Body {
            schema: "tombolo.verify/v1",
            equal: is_equal,
            waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            mended,
            regions: &comparison.regions,
            survey: &survey,
            shards: &comparison.shards,
            unreachable: unreachable.iter().map(CliError::text).collect(),
        })?,
        Format::Human => print(&human(&verifications, &survey, mended))?,
    }
    conclude(&survey, &comparison, unreachable, arguments)
}

/// Has every region compare itself with the next one.
fn compare_all(clients: &[Client]) -> Result<Vec<Verification>, CliError> {
    let next = |client: &Client| {
        let at = clients.iter().position(|it| it.name() == client.name()).unwrap_or_default();
        clients[(at + 1) % clients.len()].name().to_owned()
    };
    let answers = ask_all(clients, |client| {
        let peer = next(client);
        let answer: Result<Verification, CliError> = client.ask(PATH, &json!({ "peers": [peer] }));
        if let Ok(it) = &answer {
            let (region, entries) = (client.name(), it.entries);
            note(&format!("compared {region} with {peer}: {entries} entries, {} damaged", it.damaged_count));
        }
        answer
    });
    answers.into_iter().collect()
}

/// The digests of all regions; those out of reach are left out of the comparison.
fn look(clients: &[Client]) -> Result<(Comparison, Vec<CliError>), CliError> {
    let answers = ask_all(clients, |client| client.get::<Vec<ShardDigest>>("/v1/digest", &[]));
    let mut held = Vec::new();
    let mut unreachable = Vec::new();
    for (client, answer) in clients.iter().zip(answers) {
        match answer {
            Ok(digests) => held.push((client.name().to_owned(), digests)),
            Err(error) if error.is_unreachable() => unreachable.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((compare(held), unreachable))
}

fn conclude(
    survey: &Survey,
    comparison: &Comparison,
    unreachable: Vec<CliError>,
    arguments: &Arguments,
) -> Result<ExitCode, CliError> {
    let failed = |text: String, next: &str| Err(CliError::new(Exit::CheckFailed, text).next(next));
    let is_known = |regions: &Vec<String>| regions.len() == 1;
    if survey.damaged_count > 0 || !survey.wrong_digests.is_empty() {
        let next = match (arguments.repair, survey.damaged.iter().all(|it| is_known(&it.regions))) {
            (false, true) => "mend them: tombolo verify --repair",
            (_, false) => "say which region is right: tombolo verify --repair --trust REGION",
            (true, true) => "tombolo verify --repair once more; some entries may have been in use",
        };
        return failed(format!("{} entries are damaged", survey.damaged.len()), next);
    }
    if comparison.verdict() == Verdict::Different {
        let different = comparison.shards.iter().filter(|shard| shard.verdict == Verdict::Different);
        let shards = different.map(|shard| format!("{} ({})", shard.shard, shard.regions_named()));
        let shards = shards.collect::<Vec<_>>().join(", ");
        let next = "keep the data directories, and compare the logs: tombolo wal inspect DIR";
        return failed(format!("equal vectors, different digests: shard {shards}"), next);
    }
    if let Some(error) = unreachable.into_iter().next() {
        return Err(error);
    }
    match survey.unfinished.first() {
        Some(first) => {
            let text = format!("{} comparisons did not end, the first: {first}", survey.unfinished.len());
            failed(text, "tombolo lag, then verify again")
        }
        None if comparison.shards.is_empty() => {
            Err(CliError::new(Exit::CheckFailed, "no region showed any shard, so nothing was compared"))
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

fn human(verifications: &[Verification], survey: &Survey, mended: usize) -> String {
    let names = ["region", "with", "shards>", "entries>", "rounds>", "in motion>", "damaged>"];
    let mut columns = Columns::new(&names);
    for it in verifications {
        columns.row([
            it.region.clone(),
            it.peers.join(", "),
            it.shards.to_string(),
            it.entries.to_string(),
            it.rounds.to_string(),
            it.in_motion.to_string(),
            it.damaged_count.to_string(),
        ]);
    }
    let mut out = columns.render();
    for damaged in &survey.damaged {
        let name = match (&damaged.key, damaged.tenant) {
            (Some(key), Some(0)) => format!("{} `{key}`", damaged.kind),
            (Some(key), Some(tenant)) => format!("{} `{key}` of tenant {tenant}", damaged.kind),
            _ => damaged.entry.clone(),
        };
        out += &format!("\ndamaged in {}: {name}, shard {}\n", damaged.regions.join(" or "), damaged.shard);
        for (region, value) in &damaged.values {
            out += &format!("  {region}: {}\n", value.as_deref().unwrap_or("nothing"));
        }
    }
    for (region, shards) in &survey.wrong_digests {
        let shards: Vec<String> = shards.iter().map(u16::to_string).collect();
        out += &format!("\nwrong digests in {region}: shards {}\n", shards.join(", "));
    }
    if mended > 0 {
        out += &format!("\nmended: {mended} entries\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn what_is_damaged_is_shown_with_its_region_and_what_stands_in_each() {
        let it = Verification::deserialize(json!({
            "schema": "tombolo.verification/v1", "region": "eu", "peers": ["us"], "shards": 4, "entries": 1200,
            "rounds": 2, "in_motion": 3, "mended": 0, "damaged_count": 1, "wrong_digests": [],
            "damaged": [{"entry": "2/counter/0/76", "shard": 2, "kind": "counter", "tenant": 0, "key": "v",
                "peer": "us", "here": "region 1 +8 -0", "there": "region 1 +0 -0", "contradicts_digest": true}],
            "unfinished": [],
        }))
        .unwrap();
        let survey = Survey::of(std::slice::from_ref(&it));
        insta::assert_snapshot!(human(&[it], &survey, 0), @r"
        REGION  WITH  SHARDS  ENTRIES  ROUNDS  IN MOTION  DAMAGED
        eu      us         4     1200       2          3        1

        damaged in eu: counter `v`, shard 2
          eu: region 1 +8 -0
          us: region 1 +0 -0
        ");
    }
}
