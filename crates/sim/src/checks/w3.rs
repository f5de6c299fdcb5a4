//! W3: damage is cut only after the last durable mark; elsewhere it is quarantined and reported. W4: what recovery hands
//! over stands in its place, so no log ends where nothing was written, nor lacks what a sync covered.

use tombolo_causality::{LogId, Seq};
use tombolo_wal::{DamageKind, DamageReason};

use crate::checks::Checked;
use crate::process::Recovered;
use crate::world::{World, region_of};

/// Bytes that rot between two starts. Each may make one durable batch at the very end of a log look torn, no more.
const ROTTEN_BYTES_MAX: u64 = 2;

impl World {
    pub(crate) fn check_w3(&mut self, node: usize, found: &Recovered, is_damaged: bool) -> Checked {
        let region = region_of(node);
        for log in &found.logs {
            let end = log.end.seq;
            if end > Seq::ZERO && !self.truth.batches.contains_key(&(log.log, end)) {
                return Err(format!(
                    "W4: region {region} recovered {:?} through {end}, which nobody wrote",
                    log.log
                ));
            }
            let held = self.truth.held(node, log.log);
            if !is_damaged && end < held {
                return Err(format!(
                    "W3: region {region} cut {:?} at {end}, durable through {held}",
                    log.log
                ));
            }
            let has_cut = log.damage.iter().any(|damage| damage.kind == DamageKind::Torn);
            let is_rolled_back = self.nodes[node].is_rolled_back;
            if has_cut && !is_rolled_back && held.0.saturating_sub(end.0) > ROTTEN_BYTES_MAX {
                return Err(format!(
                    "W3: region {region} cut {:?} at {end} for rot, durable through {held}",
                    log.log
                ));
            }
            for damage in log.damage.iter().filter(|damage| damage.kind != DamageKind::Torn) {
                // What an earlier process has missed since may be still to come, or torn as it came.
                let is_open = |&(lost, last): &(LogId, Seq)| lost == log.log && held < last;
                let is_known = self.nodes[node].missing.iter().any(is_open);
                let is_gap = matches!(damage.reason, DamageReason::EndsBeforeSeal(_));
                if damage.kind == DamageKind::Rot && !is_damaged && !is_known {
                    return Err(format!("W3: region {region} found rot where none is: {damage:?}"));
                }
                if damage.lost.is_some() && damage.quarantined.is_none() && !damage.is_covered && !is_gap {
                    return Err(format!("W3: region {region} set nothing aside: {damage:?}"));
                }
                let is_gone = !damage.is_covered && damage.kind == DamageKind::Rot && !is_known;
                if let Some((_, last)) = damage.lost.filter(|_| is_gone) {
                    self.nodes[node].missing.push((log.log, last.min(held)));
                }
            }
        }
        Ok(())
    }
}
