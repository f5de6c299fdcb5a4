//! F27: what an authority absorbs keeps the generation under which another region took it, or a deleted add would be back.

use tombolo_codec::Batch;

use crate::checks::Checked;
use crate::truth::number_key;
use crate::world::World;

impl World {
    /// Looks at numbers that a region logs although no request for them came to it: it absorbs them.
    pub(crate) fn check_absorbed(&self, node: usize, batch: &Batch) -> Checked {
        let records = batch.records();
        for op in records.ops() {
            let key = number_key(batch.header().log.shard, &op.session, op.number);
            let Some(places) = self.truth.numbers.get(&key) else { continue };
            if self.has_arrived(node, &op.session, op.number) {
                continue;
            }
            let copies = places.iter().filter_map(|place| self.truth.batches.get(place));
            let copies = copies.flat_map(|copy| copy.records().conditionals());
            let is_it = |copy: &tombolo_codec::records::Conditional<'_>| {
                (copy.op.session, copy.op.number, copy.op.digest) == (op.session, op.number, op.digest)
            };
            let copies: Vec<_> = copies.filter(is_it).flat_map(|copy| copy.adds).collect();
            for &(cell, ..) in &copies {
                let is_kept = |&(other, generation, _): &(_, _, _)| {
                    other == cell
                        && records.adds().any(|add| add.cell == cell && add.generation == generation)
                };
                if !copies.iter().any(is_kept) {
                    return Err(format!(
                        "F27: number {} of {:?} is absorbed under another generation than {copies:?}",
                        op.number, op.session
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a request came to the present process of a node.
    fn has_arrived(&self, node: usize, session: &tombolo_causality::SessionId, number: u64) -> bool {
        let place = (node, self.nodes[node].life);
        let session = self.clients.sessions.iter().find(|known| known.id == *session);
        let at = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let request = session.and_then(|session| session.requests.get(at));
        request.is_none_or(|&request| self.clients.requests[request].arrived_at.contains(&place))
    }
}
