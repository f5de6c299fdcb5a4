//! Who belongs to the cluster: an operator removes a region for good, or adds one, at some node; the others hear of it
//! as the daemon's nodes do, from hellos and messages.
//!
//! Every node keeps its document as if on its disk: it is durable before anything is done with it, and an older disk
//! brings an older one back. A removed region may live on, and send what it has to whoever still listens.
//! Start at [`World::remove_one`].

use tombolo_causality::{LogId, RegionId, Seq};
use tombolo_codec::{Batch, Membership, Standing};
use tombolo_replica::{Input, MARKER};

use crate::checks::Checked;
use crate::net::{CONTROL, Frame};
use crate::queue::MS;
use crate::rare::Rare;
use crate::world::{Event, World, node_of, region_of};

/// Members that remain, at least.
const REMAINING_MIN: usize = 2;

/// The document that declares these nodes.
pub(crate) fn declared(nodes: impl IntoIterator<Item = usize>) -> Membership {
    Membership::of(
        nodes.into_iter().map(|node| (region_of(node), name_of(node), format!("node-{node}:7700"))),
    )
}

fn name_of(node: usize) -> String {
    format!("region-{}", node + 1)
}

impl World {
    /// Whether a node's region was removed, whoever has heard of that.
    pub(crate) fn is_gone(&self, node: usize) -> bool {
        self.truth.gone.contains(&node)
    }

    /// Nodes of members.
    pub(crate) fn remaining(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].is_declared && !self.is_gone(node)).collect()
    }

    /// Who answers for the sessions of a home: itself, or whoever takes its logs over.
    pub(crate) fn answers_for(&self, home: usize) -> usize {
        if self.is_gone(home) { self.remaining()[0] } else { home }
    }

    /// Whether one of two regions is out, as far as the first knows.
    pub(crate) fn is_apart(&self, node: usize, peer: usize) -> bool {
        let document = &self.nodes[node].document;
        !document.is_present(region_of(node)) || !document.is_present(region_of(peer))
    }

    /// Whether a node knows that there is nobody to dial.
    pub(crate) fn is_removed_for(&self, node: usize, peer: usize) -> bool {
        let is_removed = |of: usize| {
            let entry = self.nodes[node].document.get(region_of(of));
            entry.is_some_and(|entry| entry.standing == Standing::Removed)
        };
        is_removed(node) || is_removed(peer)
    }

    /// What a node without a disk of its own begins with: the cluster's file, as its operators have it.
    pub(crate) fn first_document(&self, node: usize) -> Membership {
        declared((0..self.nodes.len()).filter(|&other| other == node || self.nodes[other].is_declared))
    }

    /// An older disk says who belonged to the cluster then. While a removed region lives, or may start again, the
    /// operator keeps the document: a region that does not know it for removed could take in what came after its end.
    pub(crate) fn restore_document(&mut self, node: usize, document: Membership) {
        if self.truth.gone.iter().all(|&gone| self.nodes[gone].is_dead) {
            self.nodes[node].document = document;
        }
    }

    /// A member, at whose node an operator works.
    fn operated(&mut self, but: usize) -> Option<usize> {
        let up = |&node: &usize| node != but && self.nodes[node].is_up();
        let nodes: Vec<usize> = self.remaining().into_iter().filter(up).collect();
        self.chance.pick(&nodes)
    }

    /// Removes a region that seems to be dead.
    pub(crate) fn remove_one(&mut self) -> Checked {
        let remaining = self.remaining();
        let Some(gone) = self.chance.pick(&remaining) else { return Ok(()) };
        if self.is_healing || remaining.len() <= REMAINING_MIN {
            return Ok(());
        }
        let Some(at) = self.operated(gone) else {
            self.queue.after(500 * MS, Event::Remove);
            return Ok(());
        };
        match self.chance.below(3) {
            // It is dead.
            0 => {
                self.stop(gone, true);
                self.nodes[gone].is_dead = true;
            }
            // It is away, and may be back.
            1 => self.isolate(gone, None),
            _ => {
                let but = self.chance.pick(&remaining);
                self.isolate(gone, but);
            }
        }
        let delay = self.chance.range(0, 4_000) * MS;
        self.queue.after(delay, Event::Removed { node: gone, at });
        Ok(())
    }

    /// The operator has decided: what it alone holds is given up.
    pub(crate) fn removed(&mut self, gone: usize, at: usize) -> Checked {
        let is_one_too_many = self.is_gone(gone) || self.remaining().len() <= REMAINING_MIN;
        if is_one_too_many || self.is_healing || !self.nodes[at].is_up() || self.is_gone(at) {
            return Ok(());
        }
        self.trace(|| format!("region {} is removed, in region {}", region_of(gone), region_of(at)));
        self.rare.count(Rare::RegionRemoved);
        self.truth.gone.insert(gone);
        self.reassess_fates();
        self.remove_at(gone, at)
    }

    /// The operator says again what went with a disk, or a region, before anybody else heard of it.
    pub(crate) fn remind(&mut self) -> Checked {
        for added in self.remaining() {
            let knows = |node: usize| self.nodes[node].document.get(region_of(added)).is_some();
            if self.remaining().into_iter().any(|node| node != added && knows(node)) {
                continue;
            }
            if let Some(at) = self.operated(added) {
                let mut news = self.nodes[at].document.clone();
                news.join(&declared([added]));
                self.learn(at, &news)?;
            }
        }
        for gone in self.truth.gone.clone() {
            if self.remaining().into_iter().any(|node| self.is_removed_for(node, gone)) {
                continue;
            }
            if let Some(at) = self.operated(gone) {
                self.remove_at(gone, at)?;
            }
        }
        Ok(())
    }

    fn remove_at(&mut self, gone: usize, at: usize) -> Checked {
        // It may not have heard of regions that came lately: the operator, who has, adds them there first. An heir that
        // does not know a member would not wait for what that holds.
        let mut news = self.nodes[at].document.clone();
        news.join(&declared(self.remaining().into_iter().chain([gone])));
        news.set(&name_of(gone), Standing::Removed).map_err(|error| error.to_string())?;
        self.learn(at, &news)
    }

    /// Adds the region that is still to come.
    pub(crate) fn add_one(&mut self) -> Checked {
        let Some(node) = (0..self.nodes.len()).find(|&node| !self.nodes[node].is_declared) else {
            return Ok(());
        };
        let Some(at) = self.operated(node) else {
            self.queue.after(500 * MS, Event::Add);
            return Ok(());
        };
        self.rare.count(Rare::RegionAdded);
        self.trace(|| format!("region {} is added, in region {}", region_of(node), region_of(at)));
        self.nodes[node].is_declared = true;
        let mut news = self.nodes[at].document.clone();
        news.join(&declared([node]));
        self.nodes[node].document = news.clone();
        let delay = self.chance.range(1, 3_000) * MS;
        self.queue.after(delay, Event::Boot { node, life: 0 });
        self.learn(at, &news)
    }

    /// Takes in what another node knows: durable, then told to peers, then acted on.
    pub(crate) fn learn(&mut self, node: usize, news: &Membership) -> Checked {
        if !self.nodes[node].document.join(news) {
            return Ok(());
        }
        let document = self.nodes[node].document.clone();
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        for peer in process.links.keys().copied().collect::<Vec<_>>() {
            self.send(node, peer, CONTROL, Frame::Members(document.clone()));
        }
        let roster = document.roster(region_of(node));
        self.input_all(node, || Input::Members(roster.clone()))
    }

    /// A peer says who belongs to the cluster; gives whether there is more to say to it.
    pub(crate) fn heard_members(
        &mut self,
        node: usize,
        peer: usize,
        members: &Membership,
    ) -> Result<bool, String> {
        if !self.is_apart(node, peer) {
            self.learn(node, members)?;
        }
        if !self.is_apart(node, peer) {
            return Ok(true);
        }
        if !self.is_gone(node) {
            self.rare.count(Rare::RemovedRefused);
        }
        // Whoever was removed learns it from this.
        let document = self.nodes[node].document.clone();
        self.send(node, peer, CONTROL, Frame::Members(document));
        let process = self.nodes[node].process.as_ref();
        let connection = process.and_then(|process| process.links.get(&peer)).map(|link| link.connection);
        if let Some(connection) = connection {
            self.close_end(connection, node)?;
        }
        Ok(false)
    }

    /// Hands a batch of a removed region that came too late to a member, as if another one relayed it.
    pub(crate) fn relay_late(&mut self) -> Checked {
        let Some(gone) = self.chance.pick(&self.truth.gone.iter().copied().collect::<Vec<_>>()) else {
            return Ok(());
        };
        let late = self
            .truth
            .batches
            .iter()
            .filter(|((log, seq), _)| log.region == region_of(gone) && self.truth.is_late(*log, *seq));
        let late: Vec<&Batch> = late.map(|(_, batch)| batch).collect();
        let Some(batch) = self.chance.pick(&late).cloned() else { return Ok(()) };
        let shard = usize::from(batch.header().log.shard.0);
        let remaining = self.remaining();
        let Some(node) = self.chance.pick(&remaining) else { return Ok(()) };
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let replica = &process.shards[shard].replica;
        // Whoever has not heard of the end yet gets nothing of it from members that have.
        let has_heir = replica.roster().removed.contains(&region_of(gone))
            && !replica.without_heir().contains(&region_of(gone));
        let Some((&peer, link)) = process.links.iter().next().filter(|_| has_heir) else { return Ok(()) };
        let (from, link) = (region_of(peer), link.link);
        self.rare.count(Rare::RemovedRefused);
        self.input(node, shard, Input::Remote { from, link, batch })
    }

    /// Counts what becomes of a removed region's logs.
    pub(crate) fn count_inherited(&mut self, batch: &Batch) {
        let records = batch.records();
        if records.seals().any(|seal| seal.epoch == MARKER) {
            self.rare.count(Rare::HeirSealed);
        }
        let is_inherited = |home: RegionId| home != batch.header().log.region && self.is_gone(node_of(home));
        let inherited = records.ops().filter(|op| is_inherited(op.session.home)).count();
        (0..inherited).for_each(|_| self.rare.count(Rare::HeirAbsorbed));
    }
}

impl crate::truth::Truth {
    /// Whether a batch is of a removed region and lies beyond what its heir took over.
    pub(crate) fn is_late(&self, log: LogId, seq: Seq) -> bool {
        self.gone.contains(&node_of(log.region))
            && self.seals.contains_key(&LogId { epoch: MARKER, ..log })
            && self.seals.get(&log).is_none_or(|&(end, ..)| end < seq)
    }
}
