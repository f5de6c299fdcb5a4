//! The owner task of one shard: it waits in one place and lets the state machine decide.
//!
//! Three inboxes: what happened (disk, then peers) is always taken; what is asked (writes, reads) waits while the log has no
//! room. The task itself never waits for a peer or the disk: batches go to the committer, frames to the link's queues,
//! whose length the state machine's windows bound.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tombolo_causality::{RegionId, ShardId};
use tombolo_codec::{Batch, Position, ReadValue, Reject};
use tombolo_replica::{
    Answer, Effect, EntryName, Input, Now, Outcome, Replica, Ticket, VerifyReport, WritePart,
};

use crate::checkpoints::Keeping;
use crate::clock::Clock;
use crate::node::Outlets;
use crate::storage::Storage;

/// Inputs handled before effects run and the open batch may close.
const RUN_MAX: usize = 256;
/// Length of the inbox of what happened.
pub(crate) const EVENTS_MAX: usize = 1_024;
/// Length of the inbox of what is asked.
pub(crate) const COMMANDS_MAX: usize = 1_024;
/// How long to wait before a batch is offered again to a committer whose queue was full.
const RETRY_AFTER: Duration = Duration::from_millis(1);
/// How often a shard looks after expired sessions and garbage.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// A region came to hold, or may no longer hold, what a barrier waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BarrierEvent {
    pub(crate) shard: ShardId,
    pub(crate) region: RegionId,
    pub(crate) is_reached: bool,
}

/// What a shard is asked.
pub(crate) enum Command {
    Check {
        part: Box<WritePart>,
        reply: oneshot::Sender<Result<Box<WritePart>, Reject>>,
    },
    Write {
        part: Box<WritePart>,
        reply: oneshot::Sender<Result<Outcome, Reject>>,
    },
    Read {
        ticket: Ticket,
        input: Input,
        reply: oneshot::Sender<Vec<ReadValue>>,
    },
    Await {
        ticket: Ticket,
        positions: Vec<Position>,
        reply: mpsc::UnboundedSender<BarrierEvent>,
    },
    /// Tickets were given back.
    Cancel,
    Verify {
        peer: RegionId,
        mend: Option<BTreeSet<EntryName>>,
        reply: oneshot::Sender<Verified>,
    },
    Inspect(Look),
}

/// What a verification came to.
pub(crate) type Verified = Result<Box<VerifyReport>, Reject>;

/// Looks at a shard in its own task.
pub(crate) type Look = Box<dyn FnOnce(&mut Replica, Now) + Send>;

enum Waiting {
    Check(oneshot::Sender<Result<Box<WritePart>, Reject>>),
    Write(oneshot::Sender<Result<Outcome, Reject>>),
    Read(oneshot::Sender<Vec<ReadValue>>),
    Await(mpsc::UnboundedSender<BarrierEvent>),
    Verify(oneshot::Sender<Verified>),
}

/// Tickets under which nobody waits any more. Thousands may be given back in a moment: they share one command.
type GivenBack = Arc<Mutex<Vec<Ticket>>>;

/// Where a shard is reached.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: mpsc::Sender<Input>,
    given_back: GivenBack,
}

impl ShardHandle {
    pub(crate) fn new(commands: mpsc::Sender<Command>, events: mpsc::Sender<Input>) -> Self {
        Self { commands, events, given_back: GivenBack::default() }
    }

    /// Takes back a ticket whose caller is answered, or has gone.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let is_first = {
            let mut tickets = self.given_back.lock().unwrap_or_else(PoisonError::into_inner);
            tickets.push(ticket);
            tickets.len() == 1
        };
        if is_first
            && let Err(mpsc::error::TrySendError::Full(cancel)) = self.commands.try_send(Command::Cancel)
        {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(cancel).await });
        }
    }
}

/// The task.
pub(crate) struct ShardTask {
    shard: ShardId,
    replica: Replica,
    clock: Clock,
    outlets: Arc<Outlets>,
    storage: Arc<Storage>,
    waiting: BTreeMap<Ticket, Waiting>,
    given_back: GivenBack,
    /// Batches that the committer's queue had no room for, in order.
    held_back: VecDeque<Batch>,
    /// What is to be made durable once every batch before it was handed to the committer.
    install: Option<Keeping>,
    /// Whether there is more to do, once what waits is handled.
    proceeds: bool,
}

impl ShardTask {
    pub(crate) fn new(
        shard: ShardId,
        replica: Replica,
        clock: Clock,
        handle: &ShardHandle,
        outlets: Arc<Outlets>,
        storage: Arc<Storage>,
    ) -> Self {
        Self {
            shard,
            replica,
            clock,
            outlets,
            storage,
            waiting: BTreeMap::new(),
            given_back: Arc::clone(&handle.given_back),
            held_back: VecDeque::new(),
            install: None,
            proceeds: false,
        }
    }

    /// Runs until every handle is gone.
    pub(crate) async fn run(
        mut self,
        mut disk: mpsc::UnboundedReceiver<Input>,
        mut events: mpsc::Receiver<Input>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        self.replica.start(self.clock.now());
        self.run_effects();
        let mut tick = tokio::time::interval(TICK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut now = self.clock.now();
            // An instant, not the milliseconds until then: what is left of the present one would come on top.
            let flush_at = self.replica.next_flush_ms().map(|due_ms| self.clock.at(due_ms).into());
            tokio::select! {
                biased;
                Some(input) = disk.recv() => {
                    now = self.clock.now();
                    self.replica.handle(input, now);
                }
                event = events.recv() => match event {
                    Some(input) => {
                        now = self.clock.now();
                        self.replica.handle(input, now);
                    }
                    None => return,
                },
                command = commands.recv(), if self.replica.has_room() => match command {
                    Some(command) => {
                        now = self.clock.now();
                        self.take(command, now);
                    }
                    None => return,
                },
                _ = tick.tick() => {
                    now = self.clock.now();
                    self.replica.handle(Input::Tick, now);
                }
                () = tokio::time::sleep(RETRY_AFTER), if !self.held_back.is_empty() => {}
                () = tokio::time::sleep_until(flush_at.unwrap_or_else(|| self.clock.at(0).into())),
                    if flush_at.is_some() => now = self.clock.now(),
                () = std::future::ready(()), if self.proceeds => {}
            }
            // What else waits is handled in the same run, so that one batch and one wake-up serve all of it.
            for _ in 0..RUN_MAX {
                // Read after each is taken, so never earlier than a stamp its sender has seen.
                if let Ok(input) = disk.try_recv().or_else(|_| events.try_recv()) {
                    now = self.clock.now();
                    self.replica.handle(input, now);
                } else if let Some(command) =
                    self.replica.has_room().then(|| commands.try_recv().ok()).flatten()
                {
                    now = self.clock.now();
                    self.take(command, now);
                } else {
                    break;
                }
            }
            // One step a round, however much waits: it is short.
            if std::mem::take(&mut self.proceeds) {
                self.replica.handle(Input::Proceed, now);
            }
            self.replica.flush(now);
            self.run_effects();
            self.offer_held_back();
            if self.held_back.is_empty()
                && let Some(keeping) = self.install.take()
            {
                // The daemon is stopping if nobody installs it.
                let _ = self.outlets.installs.send((self.shard, keeping));
            }
        }
    }

    fn take(&mut self, command: Command, now: Now) {
        match command {
            Command::Check { part, reply } => {
                let ticket = self.outlets.ticket();
                self.waiting.insert(ticket, Waiting::Check(reply));
                self.replica.handle(Input::Check { ticket, part }, now);
            }
            Command::Write { part, reply } => {
                let ticket = self.outlets.ticket();
                self.waiting.insert(ticket, Waiting::Write(reply));
                self.replica.handle(Input::Write { ticket, part }, now);
            }
            // Nobody waits any more, and the ticket may have been taken back before it came.
            Command::Read { reply, .. } if reply.is_closed() => {}
            Command::Await { reply, .. } if reply.is_closed() => {}
            Command::Read { ticket, input, reply } => {
                self.waiting.insert(ticket, Waiting::Read(reply));
                self.replica.handle(input, now);
            }
            Command::Await { ticket, positions, reply } => {
                self.waiting.insert(ticket, Waiting::Await(reply));
                self.replica.handle(Input::Await { ticket, positions }, now);
            }
            Command::Cancel => {
                let tickets =
                    std::mem::take(&mut *self.given_back.lock().unwrap_or_else(PoisonError::into_inner));
                for ticket in tickets {
                    self.waiting.remove(&ticket);
                    self.replica.handle(Input::Cancel { ticket }, now);
                }
            }
            Command::Verify { peer, mend, reply } => {
                let ticket = self.outlets.ticket();
                self.waiting.insert(ticket, Waiting::Verify(reply));
                self.replica.handle(Input::Verify { ticket, peer, mend }, now);
            }
            Command::Inspect(look) => look(&mut self.replica, now),
        }
    }

    fn run_effects(&mut self) {
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::Append(batch) => self.append(batch),
                Effect::Answer { ticket, answer } => self.answer(ticket, answer),
                Effect::Reached { ticket, region } => self.tell(ticket, region, true),
                Effect::Voided { ticket, region } => self.tell(ticket, region, false),
                Effect::Load { peer, link, log, from, bytes_max } => {
                    self.storage.load(peer, link, log, from, bytes_max);
                }
                Effect::Install(difference) => self.install = Some(Keeping::Difference(difference)),
                Effect::Mend(mending) => self.install = Some(Keeping::Mending(mending)),
                Effect::Proceed => self.proceeds = true,
                other => self.outlets.run(self.shard, other),
            }
        }
    }

    fn append(&mut self, batch: Batch) {
        if self.held_back.is_empty() {
            if let Err(batch) = self.storage.append(batch) {
                self.held_back.push_back(batch);
            }
        } else {
            self.held_back.push_back(batch);
        }
    }

    fn offer_held_back(&mut self) {
        while let Some(batch) = self.held_back.pop_front() {
            if let Err(batch) = self.storage.append(batch) {
                self.held_back.push_front(batch);
                return;
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        // A caller that went away no longer needs its answer.
        match (self.waiting.remove(&ticket), answer) {
            (Some(Waiting::Check(reply)), Answer::Checked(result)) => drop(reply.send(result)),
            (Some(Waiting::Write(reply)), Answer::Written(result)) => drop(reply.send(result)),
            (Some(Waiting::Read(reply)), Answer::Read(values)) => drop(reply.send(values)),
            (Some(Waiting::Verify(reply)), Answer::Verified(result)) => drop(reply.send(result)),
            (None, _) => {}
            (Some(_), answer) => unreachable!("a ticket is answered in kind, not with {answer:?}"),
        }
    }

    fn tell(&mut self, ticket: Ticket, region: RegionId, is_reached: bool) {
        if let Some(Waiting::Await(reply)) = self.waiting.get(&ticket) {
            let _ = reply.send(BarrierEvent { shard: self.shard, region, is_reached });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tickets_given_back_in_a_moment_share_one_command_and_later_ones_have_another() {
        let ((commands, mut inbox), (events, _)) = (mpsc::channel(1), mpsc::channel(1));
        let handle = ShardHandle::new(commands, events);
        let taken = || std::mem::take(&mut *handle.given_back.lock().unwrap());
        handle.cancel(Ticket(1));
        handle.cancel(Ticket(2));
        assert!(matches!(inbox.try_recv(), Ok(Command::Cancel)));
        assert!(inbox.try_recv().is_err());
        assert_eq!(taken(), [Ticket(1), Ticket(2)]);
        // The inbox has no room for it now: it comes later.
        handle.commands.try_send(Command::Inspect(Box::new(|_, _| {}))).unwrap();
        handle.cancel(Ticket(3));
        assert!(matches!(inbox.recv().await, Some(Command::Inspect(_))));
        assert!(matches!(inbox.recv().await, Some(Command::Cancel)));
        assert_eq!(taken(), [Ticket(3)]);
    }
}
