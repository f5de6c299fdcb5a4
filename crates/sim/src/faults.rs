//! What strikes: each kind of fault, and how long it lasts.

use tombolo_causality::RegionId;
use tombolo_replica::Input;

use crate::checks::Checked;
use crate::plan::{Fault, signed};
use crate::queue::{MS, Micros, SECOND};
use crate::rare::Rare;
use crate::sabotage::Sabotage;
use crate::world::{Event, World, region_of};

impl World {
    /// A fault strikes, and will again.
    pub(crate) fn strike(&mut self, fault: Fault, mean: Micros) -> Checked {
        if self.is_healing {
            return Ok(());
        }
        let pause = self.chance.around(mean);
        self.queue.after(pause, Event::Strike { fault, mean });
        let node = self.chance.index(self.nodes.len());
        if !self.nodes[node].is_declared {
            return Ok(());
        }
        let other = (node + 1 + self.chance.index(self.nodes.len() - 1)) % self.nodes.len();
        match fault {
            Fault::CutOneWay => self.cut(node, other),
            Fault::CutBothWays => self.cut_pair(node, other),
            Fault::Isolate => self.isolate(node, None),
            Fault::Clog => {
                let until = self.queue.now() + self.chance.range(100, 3_000) * MS;
                self.net.clogged_until[node][other] = until;
            }
            Fault::Break => {
                let found = self.nodes[node].process.as_ref().and_then(|process| process.links.get(&other));
                if let Some(connection) = found.map(|link| link.connection) {
                    self.close_end(connection, node)?;
                }
            }
            Fault::Kill if self.nodes[node].is_up() => self.crash(node, false),
            Fault::PowerCut if self.nodes[node].is_up() => self.crash(node, true),
            Fault::PowerCutInside => {
                let operations = self.chance.range(0, 40);
                if !self.nodes[node].disk.is_armed() {
                    self.nodes[node].disk.cut_after(operations);
                }
            }
            Fault::Rot if self.nodes[node].is_up() => {
                let is_power = self.chance.percent(30);
                self.crash(node, is_power);
                let is_gross = self.sabotage == Sabotage::RotOfTheOnlyCopy;
                for _ in 0..if is_gross { 20 } else { 1 + self.chance.below(2) } {
                    self.rot(node);
                }
            }
            Fault::Restore => self.restore_and_part(node),
            Fault::SyncFailure => {
                let count = 1 + u32::try_from(self.chance.below(2)).expect("small");
                self.nodes[node].disk.memory().fail_syncs(count);
            }
            Fault::FullDisk => {
                let space = self.chance.below(30_000);
                self.nodes[node].disk.memory().limit_space(Some(space));
                let delay = self.chance.range(300, 5_000) * MS;
                self.queue.after(delay, Event::Space { node });
            }
            Fault::SlowDisk => {
                self.nodes[node].slow_until = self.queue.now() + self.chance.range(50, 2_000) * MS;
            }
            Fault::ClockJump => {
                self.rare.count(Rare::ClockJumped);
                let most = if self.chance.percent(50) { 3_600 * SECOND } else { 2 * SECOND };
                let by = signed(&mut self.chance, most);
                // Never further off than an hour.
                let hour = 3_600 * 1_000_000;
                let clock = &mut self.nodes[node].clock;
                clock.offset_us = (clock.offset_us + by).clamp(-hour, hour);
            }
            Fault::Pause => {
                let (peer, life) = (region_of(other), self.nodes[node].life);
                let most = if self.chance.percent(25) { 12_000 } else { 4_000 };
                let delay = self.chance.range(100, most) * MS;
                self.queue.after(delay, Event::Resume { node, life, peer });
                self.pause(node, peer, true)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn cut(&mut self, from: usize, to: usize) {
        let delay = self.chance.range(100, 7_000) * MS;
        self.cut_for(from, to, delay);
    }

    fn cut_for(&mut self, from: usize, to: usize, delay: Micros) {
        self.net.cut(from, to);
        self.notice_cut(from, to);
        self.queue.after(delay, Event::Mend { from, to });
    }

    fn cut_pair(&mut self, one: usize, other: usize) {
        let delay = self.chance.range(100, 9_000) * MS;
        self.cut_for(one, other, delay);
        self.cut_for(other, one, delay);
    }

    /// Parts a region from all others, but perhaps one.
    pub(crate) fn isolate(&mut self, node: usize, but: Option<usize>) {
        // Longer than histories are kept, every now and then.
        let (least, most) = if self.chance.percent(25) { (8_000, 25_000) } else { (500, 12_000) };
        let delay = self.chance.range(least, most) * MS;
        for other in (0..self.nodes.len()).filter(|&other| other != node && Some(other) != but) {
            self.cut_for(node, other, delay);
            self.cut_for(other, node, delay);
        }
    }

    /// A disk comes back older: sometimes its region starts alone, sometimes with one peer in reach.
    fn restore_and_part(&mut self, node: usize) {
        if self.nodes[node].is_up() {
            self.crash(node, true);
        }
        self.restore(node);
        match self.chance.below(3) {
            0 => self.isolate(node, None),
            1 => {
                let but = self.chance.index(self.nodes.len());
                self.isolate(node, Some(but));
            }
            _ => {}
        }
    }

    pub(crate) fn pause(&mut self, node: usize, peer: RegionId, is_paused: bool) -> Checked {
        if let Some(process) = &mut self.nodes[node].process {
            for shard in &mut process.shards {
                if is_paused {
                    shard.paused.insert(peer);
                } else {
                    shard.paused.remove(&peer);
                }
            }
        }
        self.input_all(node, || Input::PauseApply { peer, is_paused })
    }
}
