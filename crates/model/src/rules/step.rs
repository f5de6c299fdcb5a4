//! What can happen in a world, and what it does. Start at [`World::actions`] and [`World::after`].

use super::action::Action;
use super::admit;
use super::garbage;
use super::log::RECORDS;
use super::whole;
use super::world::{Frame, HOME, World};
use crate::scenario::Scenario;
use crate::variant::{Rules, Variant};

impl World {
    /// All that may happen next; some of it may turn out to change nothing.
    pub fn actions(&self, scenario: &Scenario, rules: Rules, out: &mut Vec<Action>) {
        out.clear();
        self.requests(scenario, rules, out);
        self.exchanges(scenario, rules, out);
        self.faults(scenario, rules, out);
        if scenario.budget.garbage {
            self.collections(rules, out);
        }
    }

    fn requests(&self, scenario: &Scenario, rules: Rules, out: &mut Vec<Action>) {
        let reachable = self.members();
        let known = self.client.sent.trailing_ones() as u8 + 1;
        for region in reachable {
            if self.budget.sends > 0 {
                (0..known.min(scenario.ops)).for_each(|number| self.sends(number, region, rules, out));
            }
            if self.budget.adds > 0 {
                out.push(Action::Add(region));
            }
            if self.budget.deletes > 0 {
                out.extend((0..scenario.deletes).map(|delete| Action::Delete(delete, region)));
            }
            if self.budget.writes > 0 {
                out.extend((0..scenario.writes.len() as u8).map(|write| Action::Write(write, region)));
            }
        }
        let open = self.client.sent & !self.client.answered & !self.client.given_up;
        if self.budget.give_ups > 0 {
            out.extend((0..scenario.ops).filter(|number| open >> number & 1 == 1).map(Action::GiveUp));
        }
    }

    fn sends(&self, number: u8, region: u8, rules: Rules, out: &mut Vec<Action>) {
        let is_new = |mask: u8| mask >> number & 1 == 0;
        let tells = (admit::has_authority(self, region, rules) && is_new(self.client.settled))
            || ((self.budget.give_ups > 0 || rules.breaks(Variant::MarkMovesOnAnyAnswer))
                && is_new(self.client.answered));
        let mark = if admit::records_marks(self, region, rules) { self.client.mark().min(number) } else { 0 };
        for is_heard in [false, true] {
            // A copy that was delayed brings the mark of its time.
            for mark in [0, mark] {
                let action = Action::Send { number, region, mark, is_heard };
                if (tells || !is_heard) && out.last() != Some(&action) {
                    out.push(action);
                }
            }
        }
    }

    fn exchanges(&self, scenario: &Scenario, rules: Rules, out: &mut Vec<Action>) {
        out.extend(self.frame.map(|_| Action::Arrive));
        for to in self.members() {
            for from in self.others(to) {
                for log in self.logs.names() {
                    let is_behind = self.region(to).shard.held(log) < self.region(from).shard.held(log);
                    if is_behind && self.ships(log, from, rules) {
                        out.push(Action::Ship { log, from, to });
                        if self.budget.frames > 0 && self.frame.is_none() {
                            out.push(Action::Depart { log, from, to });
                        }
                    }
                }
                if self.budget.merges > 0 {
                    out.push(Action::Merge(from, to));
                }
                if whole::asks(self, to, scenario, rules) && whole::lacks_answer(self, to, from) {
                    out.push(Action::Answer(to, from));
                }
            }
            if !self.region(to).is_whole && whole::has_caught_up(self, to, rules) {
                out.push(Action::BecomeWhole(to));
            }
            let absorbed = (0..scenario.ops).filter(|&number| admit::may_absorb(self, to, number, rules));
            out.extend(absorbed.map(|number| Action::Absorb(to, number)));
        }
    }

    fn faults(&self, scenario: &Scenario, rules: Rules, out: &mut Vec<Action>) {
        for region in self.members().filter(|region| scenario.faulty >> region & 1 == 1) {
            if self.budget.crashes > 0 {
                out.push(Action::Crash(region));
            }
            let copies = self.saved.iter().flatten().count();
            match self.saved[usize::from(region)] {
                Some(_) => out.push(Action::Rollback(region)),
                None if copies < usize::from(self.budget.rollbacks) => out.push(Action::Save(region)),
                None => {}
            }
        }
        if self.budget.removal {
            out.push(Action::Remove);
        }
        if whole::may_inherit(self, scenario.heir, scenario, rules) {
            out.push(Action::Inherit);
        }
    }

    fn collections(&self, rules: Rules, out: &mut Vec<Action>) {
        if !self.is_late && !rules.breaks(Variant::NoWindow) {
            out.push(Action::WindowPasses);
        }
        for region in self.members() {
            if garbage::may_expire(self, region, rules) {
                out.push(Action::Expire(region));
            }
            if garbage::has_garbage(self, region, RECORDS as u8, rules) {
                out.extend(self.others(region).map(|member| Action::Ack(region, member)));
            }
            if garbage::stable(self, region, rules).is_some() {
                out.push(Action::Stable(region));
            }
        }
    }

    /// The world after an action; none if it changes nothing, or the model has no room for it.
    #[must_use]
    pub fn after(&self, action: Action, scenario: &Scenario, rules: Rules) -> Option<Self> {
        let mut world = *self;
        if world.region_log_is_full() {
            return None;
        }
        match action {
            Action::Send { number, region, mark, is_heard } => {
                admit::send(&mut world, (number, mark), region, is_heard, rules);
            }
            Action::GiveUp(number) => {
                world.client.given_up |= 1 << number;
                world.client.settled |= 1 << number;
            }
            Action::Add(region) => admit::add(&mut world, region, rules),
            Action::Delete(delete, region) => admit::delete(&mut world, delete, region, rules),
            Action::Write(write, region) => admit::write(&mut world, write, region, scenario, rules),
            Action::Absorb(region, number) => admit::absorb(&mut world, region, number, rules),
            Action::Ship { log, from, to } => drop(world.ship(log, from, to, rules)),
            Action::Depart { log, from, to } => {
                let start = world.region(to).shard.held(log);
                let sender = world.region(from);
                let (end, epoch) = (sender.shard.held(log), sender.log);
                world.frame = Some(Frame { log, start, end, from, epoch, to });
            }
            Action::Arrive => world.arrive(world.frame?, rules),
            Action::Merge(from, to) => {
                let from = world.region(from).shard;
                let own = world.region(to).shard;
                let installed = own.join(&from, &world.logs, rules);
                world.region_mut(to).shard = installed.piecewise(&own, rules);
            }
            Action::Crash(region) => {
                let disk = world.region(region).shard;
                whole::restart(&mut world, region, disk, rules).then_some(())?;
            }
            Action::Save(region) => {
                world.saved[usize::from(region)] = Some(world.region(region).shard);
            }
            Action::Rollback(region) => {
                let disk = world.saved[usize::from(region)].take()?;
                whole::restart(&mut world, region, disk, rules).then_some(())?;
            }
            Action::Answer(region, member) => whole::answer(&mut world, region, member, rules),
            Action::BecomeWhole(region) => whole::become_whole(&mut world, region, scenario, rules),
            Action::Remove => whole::remove(&mut world, rules),
            Action::Inherit => whole::inherit(&mut world, scenario.heir, rules),
            Action::WindowPasses => world.is_late = true,
            Action::Expire(region) => world.write(region, super::log::Record::Expire, rules),
            Action::Ack(region, member) => {
                let ack = garbage::ack(&world, region, member, rules)?;
                world.region_mut(region).acks[usize::from(member)] = Some(ack);
            }
            Action::Stable(region) => {
                let stable = garbage::stable(&world, region, rules)?;
                garbage::write_stable(&mut world, region, stable, rules);
            }
        }
        (world != *self).then(|| {
            world.pay_for(action);
            world
        })
    }

    fn pay_for(&mut self, action: Action) {
        let budget = &mut self.budget;
        match action {
            Action::Send { .. } => budget.sends -= 1,
            Action::GiveUp(_) => budget.give_ups -= 1,
            Action::Add(_) => budget.adds -= 1,
            Action::Delete(..) => budget.deletes -= 1,
            Action::Write(..) => budget.writes -= 1,
            Action::Depart { .. } => budget.frames -= 1,
            Action::Merge(..) => budget.merges -= 1,
            Action::Crash(_) => budget.crashes -= 1,
            Action::Rollback(_) => budget.rollbacks -= 1,
            Action::Remove => budget.removal = false,
            _ => {}
        }
        debug_assert!(self.removed.is_none() || self.removed == Some(HOME), "only the home is ever removed");
    }

    /// Room for what one action and the quiet run after it may write.
    fn region_log_is_full(&self) -> bool {
        self.members().any(|region| {
            let region = self.region(region);
            usize::from(region.shard.held(region.log)) + 8 > RECORDS
        })
    }
}
