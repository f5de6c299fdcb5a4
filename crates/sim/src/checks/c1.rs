//! C1: every acked op counts exactly once in every region after heal; one with unknown outcome, at most once.

use crate::checks::Checked;
use crate::clients::Fate;
use crate::world::{World, region_of};

impl World {
    pub(crate) fn check_c1(&mut self) -> Checked {
        for node in self.remaining() {
            for shard in 0..usize::from(self.plan.shards) {
                self.check_digits(node, shard)?;
                for (add, known) in self.clients.adds[shard].iter().enumerate() {
                    let digit = self.checks.c2b.digit(node, shard, add);
                    let is_right = match known.fate {
                        Fate::Kept => digit == 1,
                        Fate::Refused => digit == 0,
                        Fate::Unknown | Fate::Promised | Fate::Lost => digit <= 1,
                    };
                    if !is_right {
                        let request = &self.clients.requests[known.request];
                        return Err(format!(
                            "C1: add {add} of shard {shard}, {:?}, counts {digit} in region {}; {:?}, logged at {:?}",
                            known.fate,
                            region_of(node),
                            request.session,
                            self.truth.places[shard].get(&add),
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
