//! The mesh: dialling, hellos, answers, subscriptions, acks and the ends of connections, as the daemon's mesh does it.

use tombolo_causality::{LogId, RegionId, VersionVector};
use tombolo_codec::{Batch, PeerMessage, Position};
use tombolo_replica::{Input, Link};

use crate::checks::Checked;
use crate::net::{CHANNELS, CONTROL, Frame};
use crate::node::LinkState;
use crate::process::DRIFT_MS_MAX;
use crate::queue::{MS, Micros, SECOND};
use crate::rare::Rare;
use crate::sabotage::{Sabotage, lowered};
use crate::world::{Event, World, node_of, region_of, shard_of};

/// Time between two attempts to reach a peer.
const DIAL_EVERY: Micros = 250 * MS;
/// A connection on which nothing was heard for so long is over.
const IDLE_FOR: Micros = 2 * SECOND;
/// Least time between two acks.
const ACK_EVERY: Micros = MS;
/// What a lost packet costs besides a round trip.
const RETRANSMIT_AFTER: Micros = 25 * MS;
/// How much later a replayed frame may arrive.
const REPLAY_WITHIN: Micros = 3 * SECOND;

impl World {
    // ---- connections --------------------------------------------------------------------------------------------

    pub(crate) fn dial(&mut self, from: usize, to: usize) {
        let Some(process) = &self.nodes[from].process else { return };
        if process.links.contains_key(&to) || self.is_removed_for(from, to) {
            return;
        }
        let lives = (self.nodes[from].life, self.nodes[to].life);
        let loss = self.plan.paths[from][to].loss_percent;
        let is_reached = self.nodes[to].is_up()
            && !self.net.is_cut(from, to)
            && !self.net.is_cut(to, from)
            && (self.is_healing || !self.chance.percent(loss));
        if is_reached {
            let round_trip = self.delay(from, to) + self.delay(to, from);
            self.queue.after(round_trip, Event::Connected { from, to, lives });
        } else {
            self.queue.after(DIAL_EVERY, Event::Dial { from, to, life: lives.0 });
        }
    }

    pub(crate) fn connected(&mut self, from: usize, to: usize, lives: (u64, u64)) -> Checked {
        let is_same = (self.nodes[from].life, self.nodes[to].life) == lives;
        let is_cut = self.net.is_cut(from, to) || self.net.is_cut(to, from);
        if self.nodes[from].life != lives.0 || !self.nodes[from].is_up() {
            return Ok(());
        }
        if !is_same || !self.nodes[to].is_up() || is_cut {
            self.queue.after(DIAL_EVERY, Event::Dial { from, to, life: lives.0 });
            return Ok(());
        }
        if self.nodes[from].process.as_ref().is_some_and(|process| process.links.contains_key(&to)) {
            return Ok(());
        }
        // Whoever accepts may not have noticed the end of the old connection: the new one replaces it.
        let old = self.nodes[to]
            .process
            .as_ref()
            .and_then(|process| process.links.get(&from))
            .map(|l| l.connection);
        if let Some(old) = old {
            self.close_end(old, to)?;
        }
        let mut link = |node: usize| {
            let process = self.nodes[node].process.as_mut().expect("both live");
            process.next_link += 1;
            Link(process.next_link)
        };
        let links = [link(from), link(to)];
        let connection = self.net.connect([from, to], links);
        for (node, peer, link) in [(from, to, links[0]), (to, from, links[1])] {
            let process = self.nodes[node].process.as_mut().expect("both live");
            let epoch = process.epoch;
            let state = LinkState {
                connection,
                link,
                peer_epoch: None,
                described: Default::default(),
                next_ack: 0,
                is_ack_due: false,
            };
            process.links.insert(peer, state);
            let members = self.nodes[node].document.clone();
            self.send(node, peer, CONTROL, Frame::Hello { epoch, members });
            self.ack_soon(node, peer);
        }
        Ok(())
    }

    /// A shard ends a connection; it closes at once, but not in the midst of what is being handled.
    pub(crate) fn hang_up(&mut self, node: usize, peer: RegionId, link: Link) {
        let is_it = |connection: &crate::net::Connection| {
            let ends = [node, node_of(peer)];
            ends.iter().all(|end| connection.ends.contains(end)) && {
                let end = connection.end_of(node);
                connection.is_open[end] && connection.links[end] == link
            }
        };
        let found = self.net.connections.iter().find(|(_, connection)| is_it(connection));
        if let Some((&connection, found)) = found.filter(|_| self.is_present(node, node_of(peer), link)) {
            let end = found.end_of(node);
            self.queue.after(0, Event::LinkLost { connection, end });
        }
    }

    /// One end closes: its shards hear of it, the other end later.
    pub(crate) fn close_end(&mut self, id: u64, node: usize) -> Checked {
        let Some(connection) = self.net.connections.get(&id) else { return Ok(()) };
        let end = connection.end_of(node);
        if !connection.is_open[end] {
            return Ok(());
        }
        let (peer, link) = (connection.ends[1 - end], connection.links[end]);
        let is_other_open = connection.is_open[1 - end];
        let late = self.net.close(id, end);
        if is_other_open {
            let is_cut = self.net.is_cut(node, peer);
            let delay = if is_cut { IDLE_FOR + self.chance.below(SECOND) } else { self.delay(node, peer) };
            self.queue.after(delay, Event::LinkLost { connection: id, end: 1 - end });
        }
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.links.remove(&peer);
        self.rare.count(Rare::LinkLost);
        let life = self.nodes[node].life;
        self.count_given_up(node, peer);
        self.input_all(node, || Input::PeerDown { peer: region_of(peer), link })?;
        if self.chance.percent(30) {
            // What was read from the old connection before its end may stand in an inbox behind that end.
            for frame in late {
                self.late(node, peer, link, frame)?;
            }
        }
        if node < peer {
            let delay = self.chance.below(DIAL_EVERY);
            self.queue.after(delay, Event::Dial { from: node, to: peer, life });
        }
        Ok(())
    }

    fn late(&mut self, node: usize, peer: usize, link: Link, frame: Frame) -> Checked {
        let from = region_of(peer);
        self.rare.count(Rare::LateFrame);
        match frame {
            Frame::Batch(batch) => {
                let shard = usize::from(batch.header().log.shard.0);
                self.input(node, shard, Input::Remote { from, link, batch })
            }
            Frame::Acks { positions, .. } => self.heard_acks(node, from, link, &positions),
            Frame::Hello { .. } | Frame::Members(_) | Frame::Answer { .. } | Frame::Message(_) => Ok(()),
        }
    }

    pub(crate) fn link_lost(&mut self, id: u64, end: usize) -> Checked {
        let Some(connection) = self.net.connections.get(&id) else { return Ok(()) };
        let node = connection.ends[end];
        if self.nodes[node].is_up() {
            self.close_end(id, node)
        } else {
            self.net.close(id, end);
            Ok(())
        }
    }

    /// The process behind one end is gone: the other end notices when it hears nothing.
    pub(crate) fn abandon(&mut self, id: u64, node: usize) {
        let Some(connection) = self.net.connections.get(&id) else { return };
        let end = connection.end_of(node);
        let is_other_open = connection.is_open[1 - end];
        self.net.close(id, end);
        if is_other_open {
            let delay = self.chance.range(10 * MS, IDLE_FOR);
            self.queue.after(delay, Event::LinkLost { connection: id, end: 1 - end });
        }
    }

    /// A cut that lasts ends the connections that cross it; one side notices first.
    pub(crate) fn notice_cut(&mut self, from: usize, to: usize) {
        let crosses = |connection: &&crate::net::Connection| {
            connection.ends == [from, to] || connection.ends == [to, from]
        };
        let found = self.net.connections.iter().find(|(_, c)| c.is_open == [true; 2] && crosses(c));
        if let Some((&connection, found)) = found {
            let end = found.end_of(to);
            self.queue.after(IDLE_FOR, Event::Idle { connection, end });
        }
    }

    /// Nothing was heard for a while at one end, unless the cut is over.
    pub(crate) fn idle(&mut self, id: u64, end: usize) -> Checked {
        let ends = self.net.connections.get(&id).map(|connection| connection.ends);
        match ends {
            Some(ends) if self.net.is_cut(ends[1 - end], ends[end]) => self.link_lost(id, end),
            _ => Ok(()),
        }
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        if !self.net.is_cut(from, to) {
            return;
        }
        self.net.mend(from, to);
        self.kick(from, to);
    }

    /// What was held up on a path goes on.
    pub(crate) fn kick(&mut self, from: usize, to: usize) {
        if self.net.is_cut(from, to) {
            return;
        }
        let delay = self.delay(from, to);
        for (&connection, one) in &mut self.net.connections {
            let end = one.end_of(to);
            if one.ends[end] != to || one.ends[1 - end] != from {
                continue;
            }
            let direction = &mut one.directions[end];
            for channel in 0..CHANNELS {
                if !direction.channels[channel].is_empty() && !direction.is_scheduled[channel] {
                    direction.is_scheduled[channel] = true;
                    self.queue.after(delay, Event::Deliver { connection, end, channel });
                }
            }
        }
    }

    // ---- frames -------------------------------------------------------------------------------------------------

    fn delay(&mut self, from: usize, to: usize) -> Micros {
        let path = self.plan.paths[from][to];
        let clogged = self.net.clogged_until[from][to].saturating_sub(self.queue.now());
        path.latency + self.chance.below(path.jitter + 1) + clogged
    }

    /// Puts a frame on the present connection to a peer, if there is one.
    pub(crate) fn send(&mut self, node: usize, peer: usize, channel: usize, frame: Frame) {
        let Some(process) = &self.nodes[node].process else { return };
        let Some(link) = process.links.get(&peer) else { return };
        let id = link.connection;
        let path = self.plan.paths[node][peer];
        let mut delay = self.delay(node, peer);
        if !self.is_healing {
            for _ in 0..4 {
                if !self.chance.percent(path.loss_percent) {
                    break;
                }
                delay += 2 * path.latency + RETRANSMIT_AFTER;
            }
        }
        let may_replay = matches!(frame, Frame::Batch(_) | Frame::Acks { .. });
        let replay = (may_replay && !self.is_healing && self.chance.percent(path.replay_percent))
            .then(|| self.chance.below(REPLAY_WITHIN));
        let now = self.queue.now();
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let end = connection.end_of(peer);
        let direction = &mut connection.directions[end];
        let when = (now + delay).max(direction.last[channel]);
        direction.last[channel] = when;
        let queue = &mut direction.channels[channel];
        let mut put = |due: Micros, frame: Frame| {
            let place = queue.partition_point(|&(other, _)| other <= due);
            queue.insert(place, (due, frame));
        };
        if let Some(later) = replay {
            // Behind what it repeats; what comes after that does not wait for it.
            put(when + later, frame.clone());
            self.rare.count(Rare::Replayed);
        }
        put(when, frame);
        self.schedule(id, end, channel);
    }

    /// Makes sure that the first frame of a channel has its event.
    fn schedule(&mut self, id: u64, end: usize, channel: usize) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let direction = &mut connection.directions[end];
        let Some(&(due, _)) = direction.channels[channel].front() else { return };
        if !std::mem::replace(&mut direction.is_scheduled[channel], true) {
            self.queue.at(due, Event::Deliver { connection: id, end, channel });
        }
    }

    pub(crate) fn deliver(&mut self, id: u64, end: usize, channel: usize) -> Checked {
        let now = self.queue.now();
        let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
        connection.directions[end].is_scheduled[channel] = false;
        let (node, peer, link) = (connection.ends[end], connection.ends[1 - end], connection.links[end]);
        if !connection.is_open[end] || self.net.is_cut(peer, node) {
            return Ok(());
        }
        loop {
            let Some(connection) = self.net.connections.get_mut(&id) else { return Ok(()) };
            let queue = &mut connection.directions[end].channels[channel];
            if queue.front().is_none_or(|&(due, _)| due > now) || !connection.is_open[end] {
                break;
            }
            let Some((_, frame)) = queue.pop_front() else { break };
            self.heard(node, peer, link, frame)?;
        }
        self.schedule(id, end, channel);
        Ok(())
    }

    fn heard(&mut self, node: usize, peer: usize, link: Link, frame: Frame) -> Checked {
        let from = region_of(peer);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let own_epoch = process.epoch;
        let Some(state) = process.links.get_mut(&peer).filter(|state| state.link == link) else {
            return Ok(());
        };
        match frame {
            Frame::Members(members) => self.heard_members(node, peer, &members).map(drop),
            Frame::Hello { epoch, members } => {
                if !self.heard_members(node, peer, &members)? {
                    return Ok(());
                }
                let process = self.nodes[node].process.as_mut();
                let Some(state) = process.and_then(|process| process.links.get_mut(&peer)) else {
                    return Ok(());
                };
                state.peer_epoch = Some(epoch);
                self.input_all(node, || Input::PeerUp { peer: from, epoch, link })
            }
            Frame::Answer { epoch, answers, parts } => {
                if answers != own_epoch || state.peer_epoch != Some(epoch) {
                    return Err(format!("region {from} answered a hello that was not asked"));
                }
                for (shard, (received, applied)) in parts.into_iter().enumerate() {
                    let received =
                        if self.sabotage == Sabotage::LowAnswers { lowered(&received) } else { received };
                    self.input(node, shard, Input::PeerAnswer { peer: from, link, received, applied })?;
                }
                Ok(())
            }
            Frame::Message(message) => match Input::said(from, link, message) {
                Some((shard, Input::WholeAnswered { from, link, roster, epochs, mut received })) => {
                    if self.sabotage == Sabotage::LowAnswers {
                        received = lowered(&received);
                    }
                    self.input(
                        node,
                        usize::from(shard.0),
                        Input::WholeAnswered { from, link, roster, epochs, received },
                    )
                }
                Some((shard, input)) => self.input(node, usize::from(shard.0), input),
                None => Err("a replica sent what is not its own to say".to_owned()),
            },
            Frame::Acks { epoch, positions } => {
                if state.peer_epoch == Some(epoch) {
                    self.heard_acks(node, from, link, &positions)
                } else {
                    Ok(())
                }
            }
            Frame::Batch(batch) => {
                let is_due = self.sabotage == Sabotage::AlteredBatches && self.chance.percent(5);
                let Some(batch) = self.forger.pass(node, batch, is_due) else { return Ok(()) };
                if batch.header().log.region != from {
                    self.rare.count(Rare::Relayed);
                }
                self.input(node, usize::from(batch.header().log.shard.0), Input::Remote { from, link, batch })
            }
        }
    }

    fn heard_acks(&mut self, node: usize, from: RegionId, link: Link, positions: &[Position]) -> Checked {
        for shard in 0..usize::from(self.plan.shards) {
            let own: Vec<Position> =
                positions.iter().filter(|position| position.log.shard == shard_of(shard)).copied().collect();
            if !own.is_empty() {
                self.input(node, shard, Input::Acked { from, link, positions: own })?;
            }
        }
        Ok(())
    }

    // ---- what replicas say --------------------------------------------------------------------------------------

    fn is_present(&self, node: usize, peer: usize, link: Link) -> bool {
        let links = self.nodes[node].process.as_ref().map(|process| &process.links);
        links.and_then(|links| links.get(&peer)).is_some_and(|state| state.link == link)
    }

    pub(crate) fn ship(&mut self, node: usize, peer: RegionId, link: Link, batch: Batch) -> Checked {
        self.check_shipped(node, &batch)?;
        self.trace(|| {
            format!(
                "region {} ships to {peer}: {:?} {}",
                region_of(node),
                batch.header().log,
                batch.header().seq
            )
        });
        let peer = node_of(peer);
        if self.is_present(node, peer, link) {
            let lane = 1 + usize::from(batch.header().log.shard.0) % (CHANNELS - 1);
            self.send(node, peer, lane, Frame::Batch(batch));
        }
        Ok(())
    }

    pub(crate) fn say(&mut self, node: usize, peer: RegionId, link: Link, message: PeerMessage) {
        let (to, peer) = (peer, node_of(peer));
        if self.is_present(node, peer, link) {
            self.trace(|| format!("region {} says to {to}: {message:?}", region_of(node)));
            self.note_said(node, peer, &message);
            self.send(node, peer, CONTROL, Frame::Message(message));
        }
    }

    /// Answers the peer's hello once every shard has said what it holds.
    pub(crate) fn describe(
        &mut self,
        node: usize,
        shard: usize,
        (peer, link): (RegionId, Link),
        part: (VersionVector, VersionVector),
    ) {
        let (peer, shards) = (node_of(peer), usize::from(self.plan.shards));
        let Some(process) = &mut self.nodes[node].process else { return };
        let epoch = process.epoch;
        let Some(state) = process.links.get_mut(&peer).filter(|state| state.link == link) else { return };
        state.described.insert(shard_of(shard), part);
        let Some(answers) = state.peer_epoch else { return };
        if state.described.len() == shards {
            let parts = std::mem::take(&mut state.described).into_values().collect();
            self.send(node, peer, CONTROL, Frame::Answer { epoch, answers, parts });
        }
    }

    /// Every peer shall hear that this much is applied and durable here.
    pub(crate) fn board_acks(&mut self, node: usize, position: Position) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            let Some(process) = &mut self.nodes[node].process else { return };
            process.acks[peer].insert(position.log, position.seq);
            self.ack_soon(node, peer);
        }
    }

    fn ack_soon(&mut self, node: usize, peer: usize) {
        let life = self.nodes[node].life;
        let now = self.queue.now();
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.acks[peer].is_empty() {
            return;
        }
        let Some(state) = process.links.get_mut(&peer) else { return };
        if !std::mem::replace(&mut state.is_ack_due, true) {
            self.queue.at(state.next_ack.max(now + 50), Event::SendAcks { node, life, peer });
        }
    }

    pub(crate) fn send_acks(&mut self, node: usize, peer: usize) {
        let now = self.queue.now();
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(state) = process.links.get_mut(&peer) else { return };
        state.is_ack_due = false;
        state.next_ack = now + ACK_EVERY;
        let epoch = process.epoch;
        let taken = std::mem::take(&mut process.acks[peer]);
        let positions: Vec<Position> =
            taken.into_iter().map(|(log, seq): (LogId, _)| Position { log, seq }).collect();
        if !positions.is_empty() {
            self.send(node, peer, CONTROL, Frame::Acks { epoch, positions });
        }
    }

    // ---- clocks -------------------------------------------------------------------------------------------------

    /// Every region compares its clock with those of its peers, as heartbeats let it.
    pub(crate) fn compare_clocks(&mut self) -> Checked {
        let now = self.queue.now();
        let bound = |time: tombolo_causality::Time| time.plus_ms(DRIFT_MS_MAX);
        for node in 0..self.nodes.len() {
            let own = self.nodes[node].clock.read(now);
            let Some(process) = &self.nodes[node].process else { continue };
            let peers = process.links.len();
            let behind =
                process.links.keys().filter(|&&peer| bound(self.nodes[peer].clock.read(now)) < own).count();
            let is_ahead = peers > 0 && 2 * behind > peers;
            if is_ahead != process.is_clock_ahead {
                if let Some(process) = &mut self.nodes[node].process {
                    process.is_clock_ahead = is_ahead;
                }
                self.input_all(node, || Input::ClockAhead { is_ahead })?;
            }
        }
        self.queue.after(250 * MS, Event::CompareClocks);
        Ok(())
    }
}
