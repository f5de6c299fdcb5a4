//! What regions may raise: a finding that no fault of the seed explains is a failure of its own.

use tombolo_replica::Notice;

use crate::checks::Checked;
use crate::plan::Fault;
use crate::sabotage::Sabotage;
use crate::world::{World, region_of};

impl World {
    pub(crate) fn noticed(&mut self, node: usize, notice: &Notice) -> Checked {
        self.trace(|| format!("region {} raises {}: {}", region_of(node), notice.code, notice.text));
        let has = |fault: Fault| self.plan.faults.iter().any(|(one, _)| *one == fault);
        let is_expected = match notice.code {
            "clock_ahead" | "token_ahead" => true,
            "inherited" => !self.truth.gone.is_empty(),
            "foreign_log" => self.plan.adds_at.is_some(),
            "storage_full" => has(Fault::FullDisk),
            "storage_failed" => has(Fault::SyncFailure),
            "difference_failed" => {
                has(Fault::FullDisk) || has(Fault::SyncFailure) || has(Fault::PowerCutInside)
            }
            "fork" => self.sabotage == Sabotage::AlteredBatches,
            _ => false,
        };
        if is_expected {
            Ok(())
        } else {
            Err(format!("region {} raised {}: {}", region_of(node), notice.code, notice.text))
        }
    }
}
