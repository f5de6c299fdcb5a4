//! The world: three regions, their logs, the clients, and what faults are still to come.

use super::client::Client;
use super::log::{Logs, REGIONS, Record, Vector};
use super::region::Region;
use super::shard::Shard;
use crate::scenario::{Budget, Scenario};
use crate::variant::{Rules, Variant};

/// The region that opened the session.
pub const HOME: u8 = 0;
/// The log it was opened in.
pub const OPENED_IN: u8 = 0;

/// Records on their way, which may arrive though their sender is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Whose records.
    pub log: u8,
    /// What the receiver held when it was sent.
    pub start: u8,
    /// Through where it goes.
    pub end: u8,
    /// Who sent it.
    pub from: u8,
    /// In which epoch.
    pub epoch: u8,
    /// To whom.
    pub to: u8,
}

/// One state of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// All logs.
    pub logs: Logs,
    /// All regions; a removed one stays as it was new.
    pub regions: [Region; REGIONS],
    /// The clients.
    pub client: Client,
    /// A frame on its way.
    pub frame: Option<Frame>,
    /// An old copy of each region's disk.
    pub saved: [Option<Shard>; REGIONS],
    /// The region that was removed.
    pub removed: Option<u8>,
    /// Whether all that could be sent again has left the window.
    pub is_late: bool,
    /// What may still happen.
    pub budget: Budget,
}

impl World {
    /// Before anything happened.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            logs: Logs::new(),
            regions: [0, 1, 2].map(|log| Region { is_whole: !scenario.is_first_start, ..Region::new(log) }),
            client: Client::default(),
            frame: None,
            saved: [None; REGIONS],
            removed: None,
            is_late: false,
            budget: scenario.budget,
        }
    }

    /// One region.
    #[must_use]
    pub fn region(&self, region: u8) -> &Region {
        &self.regions[usize::from(region)]
    }

    /// One region, to change it.
    pub fn region_mut(&mut self, region: u8) -> &mut Region {
        &mut self.regions[usize::from(region)]
    }

    /// The regions that were not removed.
    pub fn members(&self) -> impl Iterator<Item = u8> + use<> {
        let removed = self.removed;
        (0..REGIONS as u8).filter(move |&region| Some(region) != removed)
    }

    /// The members but one.
    pub fn others(&self, region: u8) -> impl Iterator<Item = u8> + use<> {
        self.members().filter(move |&other| other != region)
    }

    /// Writes a record into a region's present log and applies it there.
    pub fn write(&mut self, region: u8, record: Record, rules: Rules) {
        let writer = &mut self.regions[usize::from(region)];
        self.logs.put(writer.log, writer.shard.held(writer.log), record);
        writer.shard.apply(writer.log, &self.logs, rules);
    }

    /// Catches up on one log; false if nothing was applied.
    pub fn ship(&mut self, log: u8, from: u8, to: u8, rules: Rules) -> bool {
        let end = self.region(from).shard.held(log);
        let shard = &mut self.regions[usize::from(to)].shard;
        let begun = shard.held(log);
        while shard.held(log) < end && shard.apply(log, &self.logs, rules) {}
        shard.held(log) > begun
    }

    /// The frame on its way arrives; one that leaves a gap is refused.
    pub fn arrive(&mut self, frame: Frame, rules: Rules) {
        self.frame = None;
        let shard = &mut self.regions[usize::from(frame.to)].shard;
        let is_next = |held: u8| (frame.start..frame.end).contains(&held);
        while is_next(shard.held(frame.log)) && shard.apply(frame.log, &self.logs, rules) {}
        self.forget_unheld();
    }

    /// Forgets the records that nobody holds.
    pub fn forget_unheld(&mut self) {
        let held = self.held();
        self.logs.truncate(&held);
    }

    /// Whether `from` may ship a log.
    #[must_use]
    pub fn ships(&self, log: u8, from: u8, rules: Rules) -> bool {
        !rules.breaks(Variant::NobodyRelays) || self.logs.get(log).region == from
    }

    /// For each log, how much of it anyone holds, on a disk or on an old copy of one, or is on its way.
    fn held(&self) -> Vector {
        let mut held = Vector::default();
        let disks = self.members().map(|region| &self.region(region).shard);
        for shard in disks.chain(self.saved.iter().flatten()) {
            for (held, &own) in held.iter_mut().zip(&shard.vector) {
                *held = own.max(*held);
            }
        }
        if let Some(frame) = self.frame {
            let held = &mut held[usize::from(frame.log)];
            *held = frame.end.max(*held);
        }
        held
    }
}
