//! [`Ledger`]: the numbered ops of one client, what was said to each, attempt by attempt, and so what each must count.
//!
//! How often each counts is read off its digit: see [`crate::digits`]. Sends nothing: see [`crate::writer`]. Ends with
//! [`Ledger::verdict`].

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::caller::Said;
use crate::digits::{self, OPS_PER_KEY};

/// How many of an op's first and last attempts its history shows.
const SHOWN_MAX: usize = 12;

/// What keys hold in each region: region → key → value, none where it is absent.
pub type Values = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// A session of the client.
#[derive(Debug, Clone)]
pub struct Session {
    /// As the region gave it.
    pub id: String,
    /// The place of the region that opened it.
    pub home: usize,
    numbers: u64,
}

/// One op under its number.
#[derive(Debug, Clone)]
struct Op {
    session: usize,
    number: u64,
    is_paired: bool,
    is_given_up: bool,
    attempts: Vec<(String, Said)>,
}

impl Op {
    fn is_acked(&self) -> bool {
        self.attempts.iter().any(|(_, said)| matches!(said, Said::Yes { .. }))
    }

    /// Answered by the session's authority: only then may the mark pass it.
    fn is_settled(&self) -> bool {
        self.attempts.iter().any(|(_, said)| matches!(said, Said::Yes { is_conditional: Some(false), .. }))
    }

    /// Some attempt may have taken effect.
    fn is_begun(&self) -> bool {
        let is_void = |said: &Said| matches!(said, Said::No { is_without_effect: true, .. } | Said::Unsent);
        self.attempts.iter().any(|(_, said)| !is_void(said))
    }

    /// It was tried, and no attempt took effect.
    fn is_refused(&self) -> bool {
        !self.attempts.is_empty() && !self.is_begun()
    }
}

/// The ops of one client.
#[derive(Debug, Clone)]
pub struct Ledger {
    name: String,
    keeps_numbers: bool,
    sessions: Vec<Session>,
    ops: Vec<Op>,
}

impl Ledger {
    /// No ops yet; the name stands in all keys.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), keeps_numbers: false, sessions: Vec::new(), ops: Vec::new() }
    }

    /// The same that moves no mark: every op may be sent again, also one that was answered.
    #[must_use]
    pub const fn keeping_numbers(mut self) -> Self {
        self.keeps_numbers = true;
        self
    }

    /// From here on, ops belong to this session.
    pub fn open(&mut self, id: String, home: usize) {
        self.sessions.push(Session { id, home, numbers: 0 });
    }

    /// How many sessions there were.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.sessions.len()
    }

    /// A new op under the next number of the session opened last; a paired one also adds 1 to the client's plain
    /// counter, under the same number.
    ///
    /// Panics: if no session was opened.
    pub fn next(&mut self, is_paired: bool) -> usize {
        self.next_in(self.sessions.len() - 1, is_paired)
    }

    /// As [`Self::next`], in an earlier session.
    pub fn next_in(&mut self, session: usize, is_paired: bool) -> usize {
        self.sessions[session].numbers += 1;
        let number = self.sessions[session].numbers;
        self.ops.push(Op { session, number, is_paired, is_given_up: false, attempts: Vec::new() });
        self.ops.len() - 1
    }

    /// How many ops there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The session of an op.
    #[must_use]
    pub fn session_of(&self, op: usize) -> &Session {
        &self.sessions[self.ops[op].session]
    }

    /// Whether an op belongs to the session opened last.
    #[must_use]
    pub fn is_of_last_session(&self, op: usize) -> bool {
        self.ops[op].session + 1 == self.sessions.len()
    }

    /// The number of an op in its session.
    #[must_use]
    pub fn number(&self, op: usize) -> u64 {
        self.ops[op].number
    }

    /// Whether an op adds to the plain counter too.
    #[must_use]
    pub fn is_paired(&self, op: usize) -> bool {
        self.ops[op].is_paired
    }

    /// The key of an op.
    #[must_use]
    pub fn key(&self, op: usize) -> String {
        digits::key(&self.name, op)
    }

    /// The plain counter.
    #[must_use]
    pub fn sum_key(&self) -> String {
        format!("sum:{}", self.name)
    }

    /// All keys that a verdict looks at.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let fates = (0..self.ops.len()).step_by(OPS_PER_KEY).map(|op| self.key(op));
        fates.chain([self.sum_key()]).collect()
    }

    /// All numbers of an op's session below this are settled: answered by its authority, or given up.
    #[must_use]
    pub fn settled(&self, op: usize) -> u64 {
        if self.keeps_numbers {
            return 0;
        }
        let session = self.ops[op].session;
        let mut open = self.ops.iter().filter(|op| op.session == session);
        let lowest = open.find(|op| !op.is_settled() && !op.is_given_up).map(|op| op.number);
        lowest.unwrap_or(self.sessions[session].numbers)
    }

    /// The body of `POST /v1/ops`.
    #[must_use]
    pub fn body(&self, op: usize, is_retry: bool) -> Value {
        let mut ops = vec![json!({"op": "add", "key": self.key(op), "delta": digits::delta(op).to_string()})];
        if self.ops[op].is_paired {
            ops.push(json!({"op": "add", "key": self.sum_key(), "delta": "1"}));
        }
        let (id, number) = (&self.session_of(op).id, self.ops[op].number);
        json!({
            "session": {"id": id, "number": number, "settled": self.settled(op)},
            "retry": is_retry,
            "ops": ops,
        })
    }

    /// Notes what came of an attempt.
    pub fn note(&mut self, op: usize, how: impl Into<String>, said: Said) {
        self.ops[op].attempts.push((how.into(), said));
    }

    /// Notes that an op is never sent again, under this number or another if it may have taken effect.
    pub fn give_up(&mut self, op: usize) {
        self.ops[op].is_given_up = true;
    }

    /// How many ops were given up that may have taken effect.
    #[must_use]
    pub fn unknown_count(&self) -> usize {
        self.ops.iter().filter(|op| op.is_given_up && op.is_begun()).count()
    }

    /// Whether an op was answered yes.
    #[must_use]
    pub fn is_acked(&self, op: usize) -> bool {
        self.ops[op].is_acked()
    }

    /// Whether some attempt may have taken effect.
    #[must_use]
    pub fn is_begun(&self, op: usize) -> bool {
        self.ops[op].is_begun()
    }

    /// The first op of the session opened last that another region vouched for and its authority has yet to answer.
    #[must_use]
    pub fn lowest_unsettled(&self) -> Option<usize> {
        let last = self.sessions.len().checked_sub(1)?;
        self.ops.iter().position(|op| op.session == last && op.is_acked() && !op.is_settled())
    }

    /// How many ops were acked.
    #[must_use]
    pub fn acked_count(&self) -> usize {
        self.ops.iter().filter(|op| op.is_acked()).count()
    }

    /// How many attempts ended so.
    pub fn attempts_count(&self, ended: impl Fn(&Said) -> bool) -> usize {
        self.ops.iter().flat_map(|op| &op.attempts).filter(|(_, said)| ended(said)).count()
    }

    /// Where an op stands and all that was said to it.
    #[must_use]
    pub fn history(&self, op: usize) -> String {
        let Op { session, number, attempts, .. } = &self.ops[op];
        let mut text = format!(
            "op {op} of {} (number {number} of its session {session}, digit {} of {})",
            self.name,
            op % OPS_PER_KEY,
            self.key(op)
        );
        for (at, (how, said)) in attempts.iter().enumerate() {
            let is_shown = at < SHOWN_MAX || at + SHOWN_MAX >= attempts.len();
            if is_shown {
                write!(text, "\n    {}. {how}: {said}", at + 1).expect("text takes text");
            }
        }
        text
    }

    /// What is wrong: an acked op that does not count exactly once everywhere, a refused one that counts, one of unknown
    /// fate that counts twice or differently in two regions, or a plain counter that is not the number of its acked adds.
    #[must_use]
    pub fn verdict(&self, values: &Values) -> Vec<String> {
        let mut wrong: Vec<String> = (0..self.ops.len()).filter_map(|op| self.judge(op, values)).collect();
        for (region, held) in values {
            for key in self.keys() {
                let value = number(held, &key);
                if !(0..1 << (2 * OPS_PER_KEY)).contains(&value) {
                    wrong
                        .push(format!("{region}: {key} is {value}, which no ops of {} add up to", self.name));
                }
            }
            let sum = number(held, &self.sum_key());
            let paired = self.ops.iter().filter(|op| op.is_paired && !op.is_refused());
            let (acked, open): (Vec<&Op>, Vec<&Op>) = paired.partition(|op| op.is_acked());
            let least = acked.len() as i128;
            let most = least + open.len() as i128;
            if !(least..=most).contains(&sum) {
                wrong.push(format!("{region}: {} is {sum}, not {least} to {most}", self.sum_key()));
            }
        }
        wrong
    }

    fn judge(&self, at: usize, values: &Values) -> Option<String> {
        let (op, key) = (&self.ops[at], self.key(at));
        let digit = |held| digits::digit(number(held, &key), at);
        let counts: Vec<u8> = values.values().map(digit).collect();
        let is_right = match (op.is_acked(), op.is_refused()) {
            (true, _) => counts.iter().all(|count| *count == 1),
            (_, true) => counts.iter().all(|count| *count == 0),
            _ => counts.iter().all(|count| *count <= 1 && *count == counts[0]),
        };
        (!is_right).then(|| {
            let by_region = values.keys().zip(&counts).map(|(region, count)| format!("{region}: {count}"));
            let by_region = by_region.collect::<Vec<_>>().join(", ");
            format!("counts {by_region}: {}", self.history(at))
        })
    }
}

fn number(held: &BTreeMap<String, Option<String>>, key: &str) -> i128 {
    let value = held.get(key).and_then(Option::as_deref);
    value.map_or(0, |value| value.parse().unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes(is_conditional: bool) -> Said {
        Said::Yes { is_replayed: false, is_conditional: Some(is_conditional) }
    }

    fn no(is_without_effect: bool) -> Said {
        Said::No { code: "busy".into(), is_without_effect, text: String::new() }
    }

    fn values(of: [i64; 2]) -> Values {
        let region = |(name, value): (&str, i64)| {
            (name.to_owned(), BTreeMap::from([("fate:w:0".to_owned(), Some(value.to_string()))]))
        };
        ["eu", "us"].into_iter().zip(of).map(region).collect()
    }

    /// An acked op, a refused one, and one of unknown fate.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new("w");
        ledger.open("s".into(), 0);
        for said in [yes(true), no(true), Said::Nothing("gone".into())] {
            let op = ledger.next(false);
            ledger.note(op, "http eu", said);
        }
        ledger
    }

    #[test]
    fn an_acked_op_counts_once_a_refused_one_never_and_an_unknown_one_alike_everywhere() {
        let ledger = ledger();
        for right in [1, 1 + 16] {
            assert_eq!(ledger.verdict(&values([right; 2])), Vec::<String>::new());
        }
    }

    #[test]
    fn sabotage_every_other_digit_turns_the_verdict_red_and_names_the_op_with_its_history() {
        let ledger = ledger();
        let wrong = [
            ([2, 2], "eu: 2, us: 2: op 0 of w"),
            ([0, 0], "eu: 0, us: 0: op 0 of w"),
            ([1, 0], "eu: 1, us: 0: op 0 of w"),
            ([1 + 4, 1], "eu: 1, us: 0: op 1 of w"),
            ([1 + 16, 1], "eu: 1, us: 0: op 2 of w"),
            ([1 + 32, 1 + 32], "eu: 2, us: 2: op 2 of w"),
        ];
        for (held, expected) in wrong {
            let red = ledger.verdict(&values(held));
            assert!(red.len() == 1 && red[0].contains(expected), "{held:?}: {red:?}");
            assert!(red[0].contains("1. http eu: "), "{red:?}");
        }
        assert_eq!(ledger.verdict(&values([-1, 1])).len(), 4, "no digits, and no sum of digits");
    }

    #[test]
    fn the_mark_passes_what_the_authority_answered_and_what_was_given_up_but_no_conditional_yes() {
        let mut ledger = ledger();
        assert_eq!(ledger.settled(2), 1);
        ledger.note(0, "http eu", yes(false));
        assert_eq!(ledger.settled(2), 2, "what was refused may yet be sent again");
        ledger.give_up(1);
        assert_eq!(ledger.settled(2), 3);
        ledger.note(2, "http eu", no(false));
        assert_eq!(ledger.settled(2), 3, "a refusal after an unknown attempt settles nothing");
    }

    #[test]
    fn a_plain_counter_holds_its_acked_adds_and_at_most_those_of_unknown_fate() {
        let mut ledger = Ledger::new("w");
        ledger.open("s".into(), 0);
        for said in [yes(false), Said::Nothing("gone".into())] {
            let op = ledger.next(true);
            ledger.note(op, "http eu", said);
        }
        for (sum, is_right) in [(0, false), (1, true), (2, true), (3, false)] {
            let mut values = values([1; 2]);
            for held in values.values_mut() {
                held.insert("sum:w".into(), Some(sum.to_string()));
            }
            assert_eq!(ledger.verdict(&values).is_empty(), is_right, "{sum}");
        }
    }
}
