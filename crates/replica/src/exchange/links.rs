//! How well one region keeps up with another: the state of a link, and which end limits it.
//!
//! A rule over what is known, per shard and peer; the state of the whole link is the worst of its shards. It waits for
//! nothing and measures nothing. Start at [`LinkFacts::verdict`].

use tombolo_causality::Seq;

use crate::exchange::progress::Behind;

/// What a peer lacks for longer makes it slow.
pub(crate) const SLOW_MS: u64 = 2_000;
/// A peer that lacks something and acks nothing for so long is stalled: that is another thing than being slow.
pub(crate) const STALLED_MS: u64 = 5_000;

/// How well a peer keeps up; later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LinkState {
    /// It lacks nothing, or nothing old.
    #[default]
    Ok,
    /// It lacks what is old, and less of it than a moment ago.
    CatchingUp,
    /// It lacks what is old, and does not get nearer.
    Slow,
    /// It lacks something and acks nothing.
    Stalled,
    /// There is no connection.
    Unreachable,
}

impl LinkState {
    /// Every state there is.
    pub const ALL: &'static [Self] =
        &[Self::Ok, Self::CatchingUp, Self::Slow, Self::Stalled, Self::Unreachable];

    /// The word doors print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::CatchingUp => "catching_up",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Which end keeps a link from being better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The source has not sent it.
    Sender,
    /// It is on its way.
    Network,
    /// The destination has it, or refuses it, and does not apply it.
    Receiver,
}

impl Limit {
    /// The word doors print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Network => "network",
            Self::Receiver => "receiver",
        }
    }
}

/// What is known of one peer in one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Whether there is a connection.
    pub is_up: bool,
    /// What it lacks of this region's log.
    pub behind: Behind,
    /// The same, one or two seconds ago.
    pub before: Behind,
    /// For how long it has lacked something and acked nothing more, in milliseconds.
    pub idle_ms: u64,
    /// Whether it says that it was asked not to apply this region's writes.
    pub is_paused_there: bool,
    /// Why it takes in no more of this region's log, if it says so.
    pub halted_there: Option<String>,
    /// Through where it has this region's log applied.
    pub applied: Seq,
    /// Through where it says to have received more than it applies in good time.
    pub received: Option<Seq>,
    /// Through where this region's log was sent to it; none if it did not ask for that here.
    pub sent: Option<Seq>,
    /// The end of this region's log.
    pub end: Seq,
    /// Sent and not acked.
    pub in_flight_bytes: usize,
    /// Whether what it wants is being read from files.
    pub is_loading: bool,
}

/// What follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How well it keeps up.
    pub state: LinkState,
    /// Who limits it and what shows that; none where the state is ok.
    pub limit: Option<(Limit, String)>,
}

impl LinkFacts {
    /// The state and, if it is not ok, the end that limits.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let state = self.state();
        let limit = (state != LinkState::Ok).then(|| self.limit());
        Verdict { state, limit }
    }

    fn state(&self) -> LinkState {
        let is_less = self.behind.ops < self.before.ops || self.behind.oldest_ms < self.before.oldest_ms;
        if !self.is_up {
            LinkState::Unreachable
        } else if self.behind.ops == 0 && self.behind.oldest_ms == 0 {
            LinkState::Ok
        } else if self.idle_ms > STALLED_MS {
            LinkState::Stalled
        } else if self.behind.oldest_ms <= SLOW_MS {
            LinkState::Ok
        } else if is_less {
            LinkState::CatchingUp
        } else {
            LinkState::Slow
        }
    }

    fn limit(&self) -> (Limit, String) {
        if !self.is_up {
            return (Limit::Network, "there is no connection".to_owned());
        }
        if let Some(why) = &self.halted_there {
            return (Limit::Receiver, format!("it halted this region's log: {why}"));
        }
        if self.is_paused_there {
            return (Limit::Receiver, "it was asked not to apply this region's writes".to_owned());
        }
        let (applied, end) = (self.applied, self.end);
        if let Some(received) = self.received.filter(|&received| received > applied) {
            let text = format!("it has received batch {received} of {end} and applied {applied}");
            return (Limit::Receiver, text);
        }
        match self.sent {
            None => (Limit::Receiver, "it has not asked for this region's log on this connection".to_owned()),
            Some(sent) if sent > applied => {
                let text = format!(
                    "batch {sent} of {end} is sent and {applied} acked, {} bytes on their way",
                    self.in_flight_bytes
                );
                (Limit::Network, text)
            }
            Some(sent) if self.is_loading => {
                (Limit::Sender, format!("batches after {sent} are being read from files, of {end}"))
            }
            Some(sent) => (Limit::Sender, format!("batch {sent} of {end} is sent and acked")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(ops: u64, oldest_ms: u64) -> LinkFacts {
        let behind = Behind { ops, oldest_ms };
        LinkFacts {
            is_up: true,
            behind,
            before: behind,
            sent: Some(Seq(5)),
            applied: Seq(3),
            end: Seq(9),
            ..LinkFacts::default()
        }
    }

    fn seen(facts: &LinkFacts) -> (LinkState, Option<Limit>) {
        let verdict = facts.verdict();
        (verdict.state, verdict.limit.map(|(limit, _)| limit))
    }

    #[test]
    fn who_lacks_nothing_is_ok_however_long_nothing_was_written() {
        let facts = LinkFacts { idle_ms: 3_600_000, ..lacking(0, 0) };
        assert_eq!(seen(&facts), (LinkState::Ok, None));
        assert_eq!(seen(&lacking(1_000_000, SLOW_MS)), (LinkState::Ok, None));
    }

    #[test]
    fn slow_is_old_catching_up_is_less_than_before_and_stalled_is_silent() {
        let slow = lacking(10, SLOW_MS + 1);
        assert_eq!(slow.verdict().state, LinkState::Slow);
        let fewer = LinkFacts { before: Behind { ops: 11, oldest_ms: 0 }, ..slow.clone() };
        assert_eq!(fewer.verdict().state, LinkState::CatchingUp);
        let younger = LinkFacts { before: Behind { ops: 1, oldest_ms: SLOW_MS + 2 }, ..slow.clone() };
        assert_eq!(younger.verdict().state, LinkState::CatchingUp);
        let silent = LinkFacts { idle_ms: STALLED_MS + 1, ..fewer };
        assert_eq!(silent.verdict().state, LinkState::Stalled);
        let gone = LinkFacts { is_up: false, ..silent };
        assert_eq!(seen(&gone), (LinkState::Unreachable, Some(Limit::Network)));
    }

    #[test]
    fn the_end_that_limits_is_named_by_what_each_end_has_done() {
        let slow = lacking(10, SLOW_MS + 1);
        assert_eq!(seen(&slow), (LinkState::Slow, Some(Limit::Network)));
        let queued = LinkFacts { received: Some(Seq(5)), ..slow.clone() };
        assert_eq!(seen(&queued), (LinkState::Slow, Some(Limit::Receiver)));
        let paused = LinkFacts { is_paused_there: true, ..slow.clone() };
        assert_eq!(seen(&paused), (LinkState::Slow, Some(Limit::Receiver)));
        let halted = LinkFacts { halted_there: Some("two batches 4".to_owned()), ..slow.clone() };
        let text = "it halted this region's log: two batches 4".to_owned();
        assert_eq!(halted.verdict().limit, Some((Limit::Receiver, text)));
        let unsent = LinkFacts { sent: Some(Seq(3)), is_loading: true, ..slow };
        assert_eq!(seen(&unsent), (LinkState::Slow, Some(Limit::Sender)));
    }
}
