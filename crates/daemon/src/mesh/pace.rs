//! When a peer may be dialled again, and whether the end of a link is news.

use std::time::Duration;

use tokio::time::Instant;

use super::ATTEMPT_EVERY;

/// The longest a peer is left alone. An operator has to act first, and a fresh attempt costs both sides a handshake.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How far a link came before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides took each other.
    Answered,
    /// This side does not take the peer's hello.
    Refused,
    /// The peer closed the link in place of an answer.
    RefusedByPeer,
    /// It broke before that, or another took its place.
    Lost,
}

/// The pace at which one peer is dialled.
#[derive(Debug)]
pub(super) struct Pace {
    not_before: Instant,
    pause: Duration,
    told: Option<String>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { not_before: Instant::now(), pause: ATTEMPT_EVERY, told: None }
    }

    /// When the next attempt may start.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Notes the end of a link that stood from `began` to `now`. Says whether it is another end than the last one's: a
    /// peer that is refused again and again is worth one line.
    pub(super) fn ended(&mut self, end: End, began: Instant, now: Instant, why: &str) -> bool {
        self.not_before = match end {
            End::Answered | End::Lost => began + ATTEMPT_EVERY,
            End::Refused => now + PAUSE_MAX,
            // The peer may just be stopping: it is left alone for longer only if it goes on like that.
            End::RefusedByPeer => now + self.pause,
        };
        self.pause = match end {
            End::Answered => ATTEMPT_EVERY,
            End::RefusedByPeer => (self.pause * 2).min(PAUSE_MAX),
            End::Refused | End::Lost => self.pause,
        };
        let is_news = end == End::Answered || self.told.as_deref() != Some(why);
        self.told = (end != End::Answered).then(|| why.to_owned());
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_goes_on_closing_links_is_dialled_ever_more_rarely_until_it_answers() {
        let start = Instant::now();
        let mut pace = Pace::new();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pace.ended(End::RefusedByPeer, start, start, "no");
            pauses.push((pace.not_before() - start).as_millis());
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        pace.ended(End::Answered, start, start + PAUSE_MAX, "gone");
        assert!(pace.not_before() < start + PAUSE_MAX, "a link that stood long is made again at once");
        pace.ended(End::RefusedByPeer, start, start, "no");
        assert_eq!(pace.not_before() - start, ATTEMPT_EVERY);
        pace.ended(End::Refused, start, start, "has 2 shards");
        assert_eq!(pace.not_before() - start, PAUSE_MAX);
    }

    #[test]
    fn the_same_refusal_is_news_once() {
        let now = Instant::now();
        let mut pace = Pace::new();
        let news = |pace: &mut Pace, end, why| pace.ended(end, now, now, why);
        assert!(news(&mut pace, End::Refused, "has 2 shards"));
        assert!(!news(&mut pace, End::Refused, "has 2 shards"));
        assert!(news(&mut pace, End::Refused, "speaks version 2"));
        assert!(news(&mut pace, End::Answered, "gone"));
        assert!(news(&mut pace, End::Answered, "gone"));
        assert!(news(&mut pace, End::Refused, "speaks version 2"));
    }
}
