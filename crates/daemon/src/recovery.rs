//! What is left on disk after the last process, brought back into shards.

use std::sync::Arc;

use tombolo_codec::Checkpoint;
use tombolo_replica::{Notice, Options, Replica};
use tombolo_wal::{
    DamageKind, FileDisk, JournalDamage, Store, WalError, WalSettings, known_ends, read_checkpoint, redo,
};

use crate::findings::Findings;
use crate::losses::Loss;

/// A shard as the disk has it.
pub(crate) struct Recovered {
    pub(crate) replica: Replica,
    pub(crate) store: Store<FileDisk>,
    pub(crate) quarantined: Vec<String>,
    /// What its logs hold no more.
    pub(crate) losses: Vec<Loss>,
    pub(crate) batches_count: u64,
}

/// Writes what the commit journals hold to the logs again; where damaged journals went. Blocks.
pub(crate) fn redo_journals(
    disk: &FileDisk,
    settings: WalSettings,
    findings: &Arc<Findings>,
) -> Result<Vec<String>, WalError> {
    let redone = redo(disk, settings)?;
    if redone.batches_count > 0 {
        let (groups_count, batches_count) = (redone.groups_count, redone.batches_count);
        tracing::info!(
            groups_count,
            batches_count,
            "redid the commit journals of a process that did not end"
        );
    }
    let quarantined = redone.damage.into_iter().map(|damage| {
        let JournalDamage { path, offset, reason, quarantined } = damage;
        let text = format!(
            "{path} is damaged at byte {offset}: {reason}; batches it held may be missing at the end of logs"
        );
        findings.raise(&path, &Notice { code: "rot", text });
        quarantined
    });
    Ok(quarantined.collect())
}

/// What is said of damage to batches that the checkpoint has taken in.
const COVERED: &str = "the checkpoint covers it, so nothing of the state is missing";

/// Recovers one shard: the newest checkpoint that reads, then every batch behind it. Blocks.
pub(crate) fn recover(
    disk: &FileDisk,
    settings: WalSettings,
    options: Options,
    findings: &Arc<Findings>,
) -> Result<Recovered, WalError> {
    let shard = options.shard;
    let place = format!("shard {shard}");
    let raise = |code, text| findings.raise(&place, &Notice { code, text });
    let mut quarantined = Vec::new();
    let found = read_checkpoint(disk, shard, |bytes| Checkpoint::decode(&bytes, settings.cluster, shard))?;
    for (path, why) in found.damaged {
        raise("rot", format!("a checkpoint was damaged and set aside as {path}: {why}"));
        quarantined.push(path);
    }
    let checkpoint = found.checkpoint;
    let known = checkpoint.as_ref().map(|checkpoint| known_ends(shard, checkpoint)).unwrap_or_default();
    let missing = if options.roster.present.len() > 1 {
        "what is missing is asked of the other regions"
    } else {
        "there is no other region to ask for what is missing"
    };
    let mut replica = Replica::open(options, checkpoint.as_ref());
    drop(checkpoint);
    let mut refused = Vec::new();
    let mut each = |batch: tombolo_codec::Batch| {
        if let Err(why) = replica.replay(&batch) {
            refused.push(why);
        }
    };
    let (store, logs) = Store::open(disk.clone(), settings, shard, &known, &mut each)?;
    for why in refused {
        raise("rot", why);
    }
    let (mut batches_count, mut losses) = (0, Vec::new());
    for log in logs {
        batches_count += log.batches_count;
        for damage in log.damage {
            if damage.kind == DamageKind::Torn {
                tracing::info!(%shard, "a torn tail was cut from {} at {}", damage.path, damage.offset);
                continue;
            }
            let lost =
                damage.lost.map_or_else(String::new, |(first, last)| format!(", batches {first} to {last}"));
            raise(
                "rot",
                format!(
                    "{} is damaged at byte {}{lost}: {}; {}",
                    damage.path,
                    damage.offset,
                    damage.reason,
                    if damage.is_covered { COVERED } else { missing }
                ),
            );
            losses.extend(damage.lost.map(|(first, last)| Loss { log: damage.log, first, last }));
            quarantined.extend(damage.quarantined);
        }
    }
    Ok(Recovered { replica, store, quarantined, losses, batches_count })
}
