//! W2: a (log, seq) never has two byte strings, anywhere, for all time. R7: a region originates records only for
//! itself, in its present epoch.

use tombolo_codec::Batch;

use crate::sabotage::Sabotage;
use crate::world::World;

impl World {
    /// Whether the batch was never seen before.
    pub(crate) fn check_w2(&self, node: usize, batch: &Batch) -> Result<bool, String> {
        let header = batch.header();
        let epoch = self.nodes[node].process.as_ref().map(|process| process.epoch);
        let is_own = header.log.region == self.nodes[node].id && Some(header.log.epoch) == epoch;
        match self.truth.batches.get(&(header.log, header.seq)) {
            None if !is_own => {
                Err(format!("R7: region {} wrote {:?} of {:?}", node + 1, header.seq, header.log))
            }
            None => Ok(true),
            // There the digest of the state is to show it alone.
            Some(known) if known.bytes() != batch.bytes() && self.sabotage != Sabotage::AlteredBatches => {
                Err(format!("W2: {:?} of {:?} has two byte strings", header.seq, header.log))
            }
            Some(_) if is_own => Err(format!("W2: {:?} of {:?} is written twice", header.seq, header.log)),
            Some(_) => Ok(false),
        }
    }
}
