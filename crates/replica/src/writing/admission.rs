//! Admission: type → session → limits of values and stamps. Decides every op of a request before any is logged.
//!
//! It judges by what is visible here, by what is staged but not applied yet, and by the request's own earlier ops: so
//! that a pipeline of writes behaves as if each had been applied before the next one came.

use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::SmallVec;
use tombolo_causality::{HybridClock, Stamp, TenantId, Time};
use tombolo_codec::{CellName, Kind, Op, Reject, RejectCode, StampSource, Verb};
use tombolo_mutants::{Mutant, is_planted};

use crate::input::{Options, WritePart};
use crate::state::State;
use crate::writing::writer::Writer;

/// What an admitted op logs.
#[derive(Debug)]
pub(crate) enum Step {
    Add { generation: Option<Stamp>, delta: i64 },
    Set { stamp: Stamp, value: Bytes, expires_at: Option<Time> },
    Delete { kind: Kind, stamp: Stamp },
}

/// An admitted op.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) steps: SmallVec<[Step; 1]>,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) value: Option<i128>,
}

impl Admitted {
    fn add(generation: Option<Stamp>, delta: i64, value: Option<i128>) -> Self {
        Self { steps: SmallVec::from_iter([Step::Add { generation, delta }]), stamp: None, value }
    }
}

/// The request's own earlier ops, as later ones must see them.
#[derive(Default)]
struct Earlier<'a> {
    kinds: HashMap<&'a [u8], Kind, foldhash::fast::FixedState>,
    writes: HashMap<(Kind, &'a [u8]), (Stamp, bool), foldhash::fast::FixedState>,
    sums: HashMap<&'a [u8], i128, foldhash::fast::FixedState>,
    has_large_adds: bool,
}

impl<'a> Earlier<'a> {
    /// Remembers a write, unless one that wins over it came before.
    fn write(&mut self, kind: Kind, key: &'a [u8], stamp: Stamp, has_value: bool) {
        let known = self.writes.entry((kind, key)).or_insert((stamp, has_value));
        if stamp >= known.0 {
            *known = (stamp, has_value);
        }
    }
}

pub(crate) struct Admission<'a> {
    pub(crate) options: &'a Options,
    pub(crate) state: &'a State,
    pub(crate) writer: &'a Writer,
    pub(crate) clock: &'a mut HybridClock,
    pub(crate) wall: Time,
    pub(crate) is_clock_ahead: bool,
    pub(crate) far_future_after: bool,
    /// Writes stamped before this cannot be told from copies of what may be forgotten; they are refused.
    pub(crate) window_start: Time,
    /// Whether this region logs the part's session as its authority: then a retry is known by its number.
    pub(crate) is_authority: bool,
}

/// A counter whose applied value stays below this cannot leave i64 by small adds, as many as can be staged.
const SAFE_MAGNITUDE: i128 = 1 << 61;
const SMALL_MAGNITUDE: u64 = 1 << 40;

/// Whether an add, staged, calls for looking at staged sums.
pub(crate) fn is_large(delta: i64) -> bool {
    delta.unsigned_abs() >= SMALL_MAGNITUDE
}

impl Admission<'_> {
    /// Admits all ops of a part, or none.
    pub(crate) fn admit(&mut self, part: &WritePart) -> Result<Vec<Admitted>, Reject> {
        let mut earlier = Earlier::default();
        let is_alone = part.ops.len() == 1;
        let is_plain = self.is_plain(part);
        let mut admitted = Vec::with_capacity(part.ops.len());
        for op in &part.ops {
            let plain = match op.verb {
                Verb::Add { delta } if is_plain => {
                    let generation = self.plain_generation(part.tenant, &op.key);
                    generation.map(|generation| Admitted::add(generation, delta, None))
                }
                _ => None,
            };
            admitted.push(match plain {
                Some(plain) => plain,
                None => self.admit_op(part, op, &mut earlier, is_alone)?,
            });
        }
        Ok(admitted)
    }

    /// Whether nothing staged or asked can change what an add to a counter in use is: the usual case, decided once a
    /// request.
    fn is_plain(&self, part: &WritePart) -> bool {
        let is_small_add = |op: &Op| matches!(op.verb, Verb::Add { delta } if !is_large(delta));
        !part.wants_values
            && !self.writer.has_large_adds()
            && self.writer.staged_records().all(|records| records.writes_count() == 0)
            && part.ops.iter().all(is_small_add)
    }

    /// The generation of a counter in use that a small add cannot overflow, in a plain request.
    #[expect(clippy::option_option, reason = "the first generation has no stamp")]
    fn plain_generation(&self, tenant: TenantId, key: &[u8]) -> Option<Option<Stamp>> {
        let counter = self.state.cells.counter(tenant, key).filter(|counter| !counter.is_empty)?;
        let is_counter = match self.options.schema.kind_of(key) {
            Some(declared) => declared == Kind::Counter,
            None => {
                let cells = &self.state.cells;
                !cells.has_registers() || cells.visible_kind(tenant, key, self.wall) == Some(Kind::Counter)
            }
        };
        (is_counter && counter.value.abs() < SAFE_MAGNITUDE).then_some(counter.generation)
    }

    fn admit_op<'p>(
        &mut self,
        part: &'p WritePart,
        op: &'p Op,
        earlier: &mut Earlier<'p>,
        is_alone: bool,
    ) -> Result<Admitted, Reject> {
        let (tenant, key) = (part.tenant, &op.key[..]);
        match &op.verb {
            Verb::Add { delta } => {
                self.check_kind(tenant, key, Kind::Counter, earlier, is_alone)?;
                self.admit_add(part, key, *delta, earlier, is_alone)
            }
            Verb::Set { value, expires_at, stamp } => {
                self.check_kind(tenant, key, Kind::Register, earlier, is_alone)?;
                let stamp = self.fix(part, key, Kind::Register, *stamp, earlier)?;
                earlier.write(Kind::Register, key, stamp, true);
                let step = Step::Set { stamp, value: value.clone(), expires_at: *expires_at };
                Ok(Admitted { steps: SmallVec::from_iter([step]), stamp: Some(stamp), value: None })
            }
            Verb::Delete { kind, stamp } => self.admit_delete(part, key, *kind, *stamp, earlier),
        }
    }

    fn cell<'k>(tenant: TenantId, kind: Kind, key: &'k [u8]) -> CellName<'k> {
        CellName { tenant, kind, key }
    }

    /// The winner of the writes to a cell that are not applied yet: by this request, or staged.
    fn pending_write(
        &self,
        tenant: TenantId,
        kind: Kind,
        key: &[u8],
        earlier: &Earlier<'_>,
    ) -> Option<(Stamp, bool)> {
        let own = earlier.writes.get(&(kind, key)).copied();
        let staged = self.writer.last_write(Self::cell(tenant, kind, key));
        own.into_iter().chain(staged).max_by_key(|&(stamp, _)| stamp)
    }

    fn is_visible(&self, tenant: TenantId, kind: Kind, key: &[u8], earlier: &Earlier<'_>) -> bool {
        match kind {
            Kind::Register => {
                let applied = self.state.cells.register(tenant, key);
                match self.pending_write(tenant, kind, key, earlier) {
                    Some((stamp, has_value)) if applied.is_none_or(|register| register.stamp() <= stamp) => {
                        has_value
                    }
                    _ => applied.is_some_and(|register| register.is_visible(self.wall)),
                }
            }
            Kind::Counter => {
                let generation = self.generation(tenant, key, earlier);
                let is_applied = self
                    .state
                    .cells
                    .counter(tenant, key)
                    .is_some_and(|counter| counter.generation == generation && !counter.is_empty);
                is_applied
                    || earlier.sums.contains_key(key)
                    || self.writer.sum(Self::cell(tenant, kind, key), generation).is_some()
            }
        }
    }

    fn check_kind<'p>(
        &self,
        tenant: TenantId,
        key: &'p [u8],
        kind: Kind,
        earlier: &mut Earlier<'p>,
        is_alone: bool,
    ) -> Result<(), Reject> {
        let refuse = |found: Kind, why: &str| {
            Err(Reject::new(
                RejectCode::WrongType,
                format!(
                    "`{}` {why} a {}, and this op is one of a {}",
                    String::from_utf8_lossy(key),
                    found.name(),
                    kind.name()
                ),
            ))
        };
        if let Some(declared) = self.options.schema.kind_of(key) {
            return if declared == kind { Ok(()) } else { refuse(declared, "is declared as") };
        }
        let other = match kind {
            Kind::Counter => Kind::Register,
            Kind::Register => Kind::Counter,
        };
        let is_pending = !earlier.writes.is_empty() || self.writer.names(Self::cell(tenant, other, key));
        if !is_pending && self.state.cells.visible_kind(tenant, key, self.wall) == Some(kind) {
            return Ok(());
        }
        if earlier.kinds.get(key) == Some(&kind) {
            return Ok(());
        }
        if self.is_visible(tenant, other, key, earlier) {
            return refuse(other, "holds");
        }
        if !is_alone {
            earlier.kinds.insert(key, kind);
        }
        Ok(())
    }

    /// The generation that an add to a counter belongs to.
    fn generation(&self, tenant: TenantId, key: &[u8], earlier: &Earlier<'_>) -> Option<Stamp> {
        let applied = self.state.cells.counter(tenant, key).and_then(|counter| counter.generation);
        if earlier.writes.is_empty() && !self.writer.has_counter_deletes() {
            return applied;
        }
        let pending = self.pending_write(tenant, Kind::Counter, key, earlier).map(|(stamp, _)| stamp);
        applied.max(pending)
    }

    fn admit_add<'p>(
        &self,
        part: &WritePart,
        key: &'p [u8],
        delta: i64,
        earlier: &mut Earlier<'p>,
        is_alone: bool,
    ) -> Result<Admitted, Reject> {
        let tenant = part.tenant;
        let generation = self.generation(tenant, key, earlier);
        let applied = match self.state.cells.counter(tenant, key) {
            Some(counter) if counter.generation == generation => counter.value,
            _ => 0,
        };
        let is_safe = applied.abs() < SAFE_MAGNITUDE
            && !is_large(delta)
            && !earlier.has_large_adds
            && !self.writer.has_large_adds();
        let mut after = None;
        if !is_safe || part.wants_values {
            let own = earlier.sums.get(key).copied().unwrap_or(0);
            let staged = self.writer.sum(Self::cell(tenant, Kind::Counter, key), generation).unwrap_or(0);
            let sum = applied + staged + own + i128::from(delta);
            if i64::try_from(sum).is_err() {
                return Err(Reject::new(
                    RejectCode::Overflow,
                    format!(
                        "`{}` would become {sum}, outside the range of i64; nothing was added",
                        String::from_utf8_lossy(key)
                    ),
                ));
            }
            after = part.wants_values.then_some(sum);
        }
        if !is_alone {
            *earlier.sums.entry(key).or_insert(0) += i128::from(delta);
            earlier.has_large_adds |= is_large(delta);
        }
        Ok(Admitted::add(generation, delta, after))
    }

    fn admit_delete<'p>(
        &mut self,
        part: &'p WritePart,
        key: &'p [u8],
        kind: Option<Kind>,
        source: StampSource,
        earlier: &mut Earlier<'p>,
    ) -> Result<Admitted, Reject> {
        let tenant = part.tenant;
        let mut admitted = Admitted::default();
        let mut went = 0;
        for candidate in [Kind::Counter, Kind::Register] {
            let is_visible = self.is_visible(tenant, candidate, key, earlier);
            went |= i128::from(is_visible && kind.is_none_or(|wanted| wanted == candidate));
            // A delete of a named kind is logged even where nothing is visible: the value may be on its way here.
            if kind.map_or(!is_visible, |wanted| wanted != candidate) {
                continue;
            }
            // One op has one stamp, whatever it deletes.
            let stamp = match admitted.stamp {
                Some(stamp) => stamp,
                None => self.fix(part, key, candidate, source, earlier)?,
            };
            admitted.stamp = Some(stamp);
            earlier.write(candidate, key, stamp, false);
            if candidate == Kind::Counter {
                earlier.sums.remove(key);
            }
            admitted.steps.push(Step::Delete { kind: candidate, stamp });
        }
        admitted.value = Some(went);
        earlier.kinds.remove(key);
        Ok(admitted)
    }

    /// The stamp that a write must be above.
    fn floor(&self, tenant: TenantId, kind: Kind, key: &[u8], earlier: &Earlier<'_>) -> Option<Stamp> {
        let applied = match kind {
            Kind::Register => self.state.cells.register(tenant, key).map(|register| register.stamp()),
            Kind::Counter => self.state.cells.counter(tenant, key).and_then(|counter| counter.generation),
        };
        applied.max(self.pending_write(tenant, kind, key, earlier).map(|(stamp, _)| stamp))
    }

    /// Fixes the stamp of a set or delete, or checks the one its sender fixed.
    ///
    /// What has seen a value beats it (C4): a drawn stamp is above the cell's and the caller's. Raised stamps never
    /// advance the clock (F13).
    fn fix(
        &mut self,
        part: &WritePart,
        key: &[u8],
        kind: Kind,
        source: StampSource,
        earlier: &Earlier<'_>,
    ) -> Result<Stamp, Reject> {
        // Two regions would stamp two copies differently, and the later copy could beat what had seen the earlier (F12).
        let is_home = part.session.is_some_and(|session| session.id.home == self.options.region);
        if let (StampSource::Here(_), true, false) = (source, is_home, self.is_authority) {
            let text = "this region restarted and has not yet heard from every other whether it knows this op; send it \
                        again under the same number, or with a stamp of your own";
            return Err(Reject::new(RejectCode::NotWhole, text).retry_after_ms(100));
        }
        let why_not_here = match part.session {
            Some(_) if self.is_authority => None,
            Some(_) => Some(
                "a set or delete must carry its stamp where another region is the authority of its session; fix the \
                 stamp, or send it to the session's home",
            ),
            None if part.retry => Some(
                "a set or delete that is sent again outside a session must carry the stamp it was answered with",
            ),
            None => None,
        };
        if let (Some(why), StampSource::Here(_)) = (why_not_here, source) {
            return Err(Reject::new(RejectCode::Malformed, why));
        }
        if self.is_clock_ahead && !part.retry {
            return Err(Reject::new(
                RejectCode::ClockSkew,
                "this region's clock is too far ahead of its peers to write registers; correct it, or write elsewhere",
            ));
        }
        let floor = self.floor(part.tenant, kind, key, earlier);
        if let StampSource::Fixed(stamp) = source
            && stamp.time < self.window_start
        {
            let text = "the stamp is older than the window within which a write may be sent again";
            let reject = Reject::new(RejectCode::SessionExpired, text);
            return Err(if part.retry { reject.unknown() } else { reject });
        }
        match source {
            StampSource::Here(op) => {
                let after = if self.far_future_after { Time::ZERO } else { part.after };
                let above_cell = floor.map_or(Time::ZERO, |stamp| stamp.time.next());
                let above_caller = if after == Time::ZERO { after } else { after.next() };
                let time = self.clock.tick(self.wall).max(above_cell).max(above_caller);
                let region = part.session.map_or(self.options.region, |session| session.id.home);
                Ok(Stamp { time, region, op })
            }
            StampSource::Fixed(stamp) if part.retry => {
                // A copy that does not win changes nothing, however far ahead it is.
                match self.clock.check_copy(stamp.time, self.wall) {
                    Err(refusal) if floor.is_none_or(|floor| floor < stamp) => Err(Reject::new(
                        RejectCode::ClockSkew,
                        format!("the stamp is refused, {refusal}; no region accepted it by a sound clock"),
                    )
                    .unknown()),
                    _ => Ok(stamp),
                }
            }
            StampSource::Fixed(stamp) => {
                if let Err(refusal) = self.clock.check(stamp.time, self.wall) {
                    return Err(Reject::new(
                        RejectCode::ClockSkew,
                        format!("the stamp is refused, {refusal}; correct the sender's clock"),
                    ));
                }
                match floor {
                    Some(floor) if floor >= stamp && !is_planted(Mutant::StampBehindAccepted) => {
                        let mut reject = Reject::new(
                            RejectCode::StampBehind,
                            format!(
                                "`{}` was written at a later stamp; write again above it",
                                String::from_utf8_lossy(key)
                            ),
                        );
                        reject.stamp_needed = Some(floor);
                        Err(reject)
                    }
                    _ => Ok(stamp),
                }
            }
        }
    }
}
