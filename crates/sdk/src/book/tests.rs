//! The book against three regions that lose frames and answers, are slow, restart and take over from each other, on
//! seeds: every op counts as often as its caller was told.
//!
//! The regions hold no more than a table of who logged which number how. Homes never learn of conditional copies while
//! the faults last: the mark is all that can take one away (F2).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;
use tombolo_codec::{Applied, Reject, RejectCode, WireOp, decode_request};

use super::*;
use crate::session::SessionShared;

const SEEDS: u64 = 300;
const STEPS: usize = 400;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).expect("44 bits") % end
    }
}

type Number = (String, u64);

struct Region {
    epoch: u128,
    is_whole: bool,
}

/// What all regions have logged.
struct Cluster {
    regions: [Region; 3],
    homes: HashMap<String, (usize, u128)>,
    marks: HashMap<String, u64>,
    ops: BTreeSet<Number>,
    conditionals: BTreeSet<Number>,
    payloads: BTreeMap<Number, WireOp>,
    /// Sabotage: no answer says that it is conditional, so the book settles on any answer.
    hides_conditionals: bool,
}

impl Cluster {
    fn handle(&mut self, at: usize, frame: &[u8], is_busy: bool) -> Bytes {
        let (id, request) = decode_request(frame).unwrap();
        let answer = match request {
            ClientRequest::OpenSession => {
                let name = format!("session {} of region {at}", self.homes.len());
                self.homes.insert(name.clone(), (at, self.regions[at].epoch));
                ClientAnswer::Session { id: name, numbers_max: 16, window_seconds: 60 }
            }
            ClientRequest::Write { session: Some((session, number, settled)), retry, ops, .. } => {
                match self.write(at, (session, number), settled, &ops[0], is_busy) {
                    Ok(done) => ClientAnswer::Written(done),
                    Err(reject) if retry => ClientAnswer::Rejected(reject.unknown()),
                    Err(reject) => ClientAnswer::Rejected(reject),
                }
            }
            other => panic!("unexpected: {other:?}"),
        };
        answer.encode(id).into()
    }

    fn write(
        &mut self,
        at: usize,
        number: Number,
        settled: u64,
        op: &WireOp,
        is_busy: bool,
    ) -> Result<WriteDone, Reject> {
        if is_busy {
            return Err(Reject::new(RejectCode::Busy, "later").retry_after_ms(50));
        }
        let (home, epoch) = self.homes[&number.0];
        let region = &self.regions[at];
        let is_of_epoch = home == at && epoch == region.epoch;
        let is_authority = is_of_epoch || (home == at && region.is_whole);
        let known = if is_authority { &mut self.ops } else { &mut self.conditionals };
        let replayed = known.contains(&number);
        if !replayed && is_authority && number.1 < self.marks.get(&number.0).copied().unwrap_or(0) {
            return Err(Reject::new(RejectCode::Stale, "below the mark"));
        }
        let payload = self.payloads.entry(number.clone()).or_insert_with(|| op.clone());
        assert_eq!(payload, op, "a copy of {number:?} is not the same write");
        if is_of_epoch {
            let mark = self.marks.entry(number.0.clone()).or_default();
            *mark = (*mark).max(settled.min(number.1));
        }
        known.insert(number);
        let conditional = !is_authority && !self.hides_conditionals;
        Ok(WriteDone { token: String::new(), replayed, conditional, stamps: Vec::new() })
    }

    /// How often the ops on a key count.
    fn count(&self, key: &[u8]) -> usize {
        let counts = |number: &&Number| {
            let mark = self.marks.get(&number.0).copied().unwrap_or(0);
            self.ops.contains(*number) || (self.conditionals.contains(*number) && number.1 >= mark)
        };
        let of_key = self.payloads.iter().filter(|(_, op)| op.key == key);
        of_key.map(|(number, _)| number).filter(counts).count()
    }
}

#[derive(Default, Debug)]
struct Sums {
    acked: usize,
    conditional: usize,
    replayed: usize,
    not_acked: usize,
    wrong: Vec<String>,
}

struct Play {
    book: Book,
    cluster: Cluster,
    dice: Dice,
    now: Instant,
    at: Option<usize>,
    requests: VecDeque<Bytes>,
    answers: VecDeque<Bytes>,
    /// Frames of connections that are over; they may still arrive.
    late: Vec<(usize, Bytes)>,
    sessions: Vec<Arc<SessionShared>>,
    asked: Vec<oneshot::Receiver<Result<Written, SdkError>>>,
}

impl Play {
    fn new(seed: u64, hides_conditionals: bool) -> Self {
        let options = Options::new("", "a").fallback("b").fallback("c").deadline(Duration::from_secs(20));
        let cluster = Cluster {
            regions: [1, 2, 3].map(|epoch| Region { epoch, is_whole: true }),
            homes: HashMap::new(),
            marks: HashMap::new(),
            ops: BTreeSet::new(),
            conditionals: BTreeSet::new(),
            payloads: BTreeMap::new(),
            hides_conditionals,
        };
        Self {
            book: Book::new(&options),
            cluster,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: Instant::now(),
            at: None,
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            late: Vec::new(),
            sessions: (0..2).map(|id| Arc::new(SessionShared::new(id))).collect(),
            asked: Vec::new(),
        }
    }

    fn connect(&mut self, at: usize) {
        self.cut();
        let welcome = ClientAnswer::Welcome {
            region: RegionId::new(u16::try_from(at).unwrap() + 1).unwrap(),
            name: at.to_string(),
            epoch: Epoch(self.cluster.regions[at].epoch),
            shards_count: 1,
            tenant: 0,
            clock: Time(1 << 60),
        };
        self.book.link_up(&welcome, self.now);
        self.at = Some(at);
    }

    fn cut(&mut self) {
        let Some(at) = self.at.take() else { return };
        self.late.extend(self.requests.drain(..).map(|frame| (at, frame)));
        self.answers.clear();
        self.book.link_down("cut".into());
    }

    fn ask(&mut self) {
        if !self.book.has_room() {
            return;
        }
        let key = format!("op {}", self.asked.len()).into_bytes();
        let verb = if self.dice.below(3) == 0 {
            WireVerb::Set { value: key.clone(), expires_at: None, stamp: None }
        } else {
            WireVerb::Add(1)
        };
        let session = self.sessions[self.dice.below(2)].clone();
        let (reply, answer) = oneshot::channel();
        self.asked.push(answer);
        self.book.accept(Ask::Write { session, op: WireOp { key, verb }, reply }, self.now);
    }

    fn exchange(&mut self, is_busy: bool) {
        let Some(at) = self.at else { return };
        self.requests.extend(self.book.take_outbox(self.now));
        if let Some(frame) = self.requests.pop_front() {
            self.answers.push_back(self.cluster.handle(at, &frame, is_busy));
        }
    }

    fn hear(&mut self) {
        if let Some(answer) = self.answers.pop_front() {
            self.book.answer(&answer, self.now).unwrap();
        }
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0..10 => self.ask(),
            10..22 => {
                let is_busy = self.dice.below(12) == 0;
                self.exchange(is_busy);
            }
            22..32 => self.hear(),
            32 | 33 => {
                let at = self.dice.below(3);
                self.connect(at);
            }
            34 => {
                let at = self.dice.below(3);
                let region = &mut self.cluster.regions[at];
                *region = Region { epoch: region.epoch + 10, is_whole: false };
                if self.at == Some(at) {
                    self.cut();
                }
            }
            35 => {
                let at = self.dice.below(3);
                self.cluster.regions[at].is_whole = true;
            }
            36 | 37 if !self.late.is_empty() => {
                let (at, frame) = self.late.swap_remove(self.dice.below(self.late.len()));
                self.cluster.handle(at, &frame, false);
            }
            _ => {
                self.now += Duration::from_millis(self.dice.below(1_500) as u64);
                self.book.tick(self.now);
            }
        }
    }

    /// All faults stop, and every caller gets an answer.
    fn finish(&mut self, sums: &mut Sums, seed: u64) {
        self.cluster.regions.iter_mut().for_each(|region| region.is_whole = true);
        let at = self.dice.below(3);
        self.connect(at);
        for _ in 0..20_000 {
            if self.book.is_idle() {
                break;
            }
            self.exchange(false);
            self.hear();
            self.now += Duration::from_millis(1);
            self.book.tick(self.now);
        }
        assert!(self.book.is_idle(), "seed {seed}: somebody waits for ever");
        for (at, frame) in std::mem::take(&mut self.late) {
            self.cluster.handle(at, &frame, false);
        }
        for (op, asked) in self.asked.iter_mut().enumerate() {
            let count = self.cluster.count(format!("op {op}").as_bytes());
            let answer = asked.try_recv().expect("every caller was told");
            let is_right = match &answer {
                Ok(_) => count == 1,
                Err(error) if error.applied() == Applied::Unknown => count <= 1,
                Err(_) => count == 0,
            };
            if !is_right {
                sums.wrong.push(format!("seed {seed}: op {op} counts {count} times, told {answer:?}"));
            }
            match answer {
                Ok(written) => {
                    sums.acked += 1;
                    sums.conditional += usize::from(written.conditional);
                    sums.replayed += usize::from(written.replayed);
                }
                Err(_) => sums.not_acked += 1,
            }
        }
    }
}

fn play(hides_conditionals: bool) -> Sums {
    let mut sums = Sums::default();
    for seed in 1..=SEEDS {
        let mut play = Play::new(seed, hides_conditionals);
        for _ in 0..STEPS {
            play.step();
        }
        play.finish(&mut sums, seed);
    }
    sums
}

#[test]
fn whatever_fails_every_op_counts_as_often_as_its_caller_was_told() {
    let sums = play(false);
    assert_eq!(sums.wrong, Vec::<String>::new());
    assert!(sums.acked > 10_000 && sums.conditional > 1_000 && sums.replayed > 500, "a weak test: {sums:?}");
    assert!(sums.not_acked > 10, "a weak test: {sums:?}");
}

#[test]
fn a_book_that_settles_on_any_answer_loses_ops() {
    let sums = play(true);
    assert!(!sums.wrong.is_empty());
    assert!(sums.wrong.iter().all(|text| text.contains("counts 0 times")), "{:?}", &sums.wrong[..1]);
}
