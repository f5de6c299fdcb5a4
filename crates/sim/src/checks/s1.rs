//! S1, S3 and what an answer of yes must mean: the op shows here at once, exactly once, and whoever holds the position
//! that it was answered with holds the op (F21).

use tombolo_codec::Position;
use tombolo_replica::Outcome;

use crate::checks::{Checked, c4};
use crate::clients::{Fate, Purpose};
use crate::truth::{DIGITS, number_key};
use crate::world::{World, region_of, shard_of};

impl World {
    pub(crate) fn check_yes(
        &mut self,
        node: usize,
        shard: usize,
        (attempt, at): (u64, usize),
        outcome: &Outcome,
    ) -> Checked {
        let Some(sent) = self.clients.attempts.get(&attempt) else { return Ok(()) };
        if self.is_gone(node) {
            return Ok(());
        }
        let (request, purpose, after) = (sent.request, sent.purpose, sent.after);
        let (is_near, is_retry) = (sent.is_after_near, sent.is_retry);
        let seen = sent.seen[at].clone();
        let portion = self.clients.requests[request].portions[at].clone();
        let session = self.clients.requests[request].session;
        let fate = self.clients.adds[shard][portion.add].fate;
        match purpose {
            Purpose::Forged => return self.check_forged(request, fate, node, outcome.conditional),
            Purpose::Stale if !outcome.replayed && !outcome.conditional && fate == Fate::Kept => {
                return Err(format!("S3: {session:?} was settled and run again"));
            }
            Purpose::Honest | Purpose::Stale => {}
        }
        if fate == Fate::Refused {
            return Err(format!(
                "S1: add {} of shard {shard} was refused for good, then answered yes",
                portion.add
            ));
        }
        if !outcome.replayed {
            c4::check(&portion.ops, &seen, (is_near.then_some(after), is_retry), outcome)?;
        }
        if self.nodes[node].is_relaxed {
            return Ok(());
        }
        let counter = portion.add / DIGITS;
        self.check_one(node, shard, counter)?;
        if self.checks.c2b.digit(node, shard, portion.add) != 1 {
            return Err(format!(
                "W1: add {} of shard {shard} was answered yes in region {}, where it does not show",
                portion.add,
                region_of(node)
            ));
        }
        let Some((session, number)) = session else { return Ok(()) };
        let id = self.clients.sessions[session].id;
        self.check_s4(node, &id)?;
        let places = self.truth.numbers.get(&number_key(shard_of(shard), &id, number));
        let is_there = places.is_some_and(|places| {
            places.iter().any(|&place| {
                let is_after = |position: &Position| self.truth.is_at_or_after(position, place);
                self.truth.is_anywhere(place.0, place.1) && outcome.positions.iter().any(is_after)
            })
        });
        if is_there {
            return Ok(());
        }
        Err(format!("F21: number {number} lies at {places:?}, answered with {:?}", outcome.positions))
    }

    fn check_one(&mut self, node: usize, shard: usize, counter: usize) -> Checked {
        self.check_counters(node, shard, &[counter])
    }
}
