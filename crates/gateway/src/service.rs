//! What a door needs from the region behind it: one admission path for all of them.
//!
//! The daemon implements [`Service`]; the doors only parse and print.

use std::future::Future;
use std::time::Duration;

use tombolo_causality::{ClusterId, Epoch, RegionId, SessionId, Stamp, TenantId, Time};
use tombolo_codec::{AwaitScope, Laggard, Op, ReadValue, Reject, SealKey, Token};

use crate::reconciliation::{Reconciliation, Verification, VerifyRequest};
use crate::regions::{Regions, RegionsRequest};
use crate::status::{ShardDigest, Status};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The namespace its keys live in; from the credential, never from a request.
    pub tenant: TenantId,
    /// Whether it may use `/v1/admin`.
    pub is_admin: bool,
}

/// What does not change while the process lives.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This region.
    pub region: RegionId,
    /// Its name.
    pub name: String,
    /// This incarnation.
    pub epoch: Epoch,
    /// Number of shards.
    pub shards_count: u16,
    /// `sync`, `interval` or `async`.
    pub durability: &'static str,
    /// Names of all regions declared when it started, this one included.
    pub regions: Vec<String>,
    /// For how long a retry is recognised.
    pub window_seconds: u64,
    /// Most numbers of a session that are open at once.
    pub session_numbers_max: usize,
    /// Most connections at one door.
    pub connections_max: usize,
}

/// A place in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRef {
    /// Which session.
    pub id: SessionId,
    /// The request's number.
    pub number: u64,
    /// All numbers below it are settled.
    pub settled: u64,
}

/// A write as every door hands it over.
#[derive(Debug, Clone, Default)]
pub struct WriteRequest {
    /// Its place in a session, if it has one.
    pub session: Option<SessionRef>,
    /// Whether it was sent before.
    pub retry: bool,
    /// Stamps drawn here come after this time.
    pub after: Time,
    /// The ops, in order. All are admitted before any is logged.
    pub ops: Vec<Op>,
    /// Whether the answer shall hold each counter's value after its op.
    pub wants_values: bool,
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What it reached.
    pub token: Token,
    /// Whether all of it had been logged before.
    pub replayed: bool,
    /// Whether it was logged conditionally.
    pub conditional: bool,
    /// The stamp of each op that fixed one.
    pub stamps: Vec<Option<Stamp>>,
    /// For each op: the counter's value right after it, if asked for; for a delete, 1 if something visible went, else 0.
    pub values: Vec<Option<i128>>,
}

/// A read as every door hands it over.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// The keys; one consistent view per shard.
    pub keys: Vec<bytes::Bytes>,
    /// Read once this region covers it.
    pub after: Option<Token>,
    /// How long to wait for that.
    pub timeout: Duration,
}

/// What a barrier waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// That a token's effects are durable and visible.
    Token(Token),
    /// That a membership revision, or a later one, is applied.
    Revision(u64),
}

/// A barrier's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Awaited {
    /// Whether the scope was reached in time.
    pub reached: bool,
    /// How long it took.
    pub waited: Duration,
    /// Regions that were not reached, whether or not the scope needed them.
    pub laggards: Vec<Laggard>,
    /// How many declared regions hold it, this one included.
    pub regions_reached: usize,
}

/// The region behind the doors. Cheap to clone; every call may be made from any task.
///
/// A future of any of these may be dropped at any time: a write that was handed over still takes effect.
pub trait Service: Clone + Send + Sync + 'static {
    /// What does not change.
    fn identity(&self) -> &Identity;

    /// The cluster's secret for tokens and session ids.
    fn seal_key(&self) -> &SealKey;

    /// Who a bearer token belongs to; `None` where no credential was given.
    ///
    /// Errors: `unauthenticated`.
    fn authenticate(&self, credential: Option<&str>) -> Result<Caller, Reject>;

    /// 128 random bits.
    fn draw(&self) -> u128;

    /// Admits, logs, answers when the durability mode says so.
    fn write(
        &self,
        caller: Caller,
        request: WriteRequest,
    ) -> impl Future<Output = Result<Written, Reject>> + Send;

    /// Reads; values in the order of the keys.
    fn read(
        &self,
        caller: Caller,
        request: ReadRequest,
    ) -> impl Future<Output = Result<Vec<ReadValue>, Reject>> + Send;

    /// Opens a session homed here.
    fn open_session(&self, caller: Caller) -> Result<SessionId, Reject>;

    /// The session that a caller means by a name of its own: exact in this region, for the window.
    fn named_session(&self, caller: Caller, name: &[u8]) -> SessionId;

    /// Waits until the scope's regions have come there.
    fn wait(
        &self,
        goal: Goal,
        scope: AwaitScope,
        timeout: Duration,
    ) -> impl Future<Output = Result<Awaited, Reject>> + Send;

    /// For `/v1/status`.
    fn status(&self) -> impl Future<Output = Status> + Send;

    /// For `/v1/digest`.
    fn digest(&self) -> impl Future<Output = Vec<ShardDigest>> + Send;

    /// For `/metrics`, in the OpenMetrics text format.
    fn metrics(&self) -> impl Future<Output = String> + Send;

    /// Whether recovery is done and the doors may be used. A partition never makes a region unready.
    fn is_ready(&self) -> bool;

    /// Stops or resumes applying what a peer sends; its batches wait in order.
    ///
    /// Errors: `unknown_region`.
    fn pause_apply(&self, peer: &str, is_paused: bool) -> impl Future<Output = Result<(), Reject>> + Send;

    /// Names of all regions that are, or were, members.
    fn region_names(&self) -> Vec<String> {
        self.identity().regions.clone()
    }

    /// How many regions are members.
    fn members_count(&self) -> usize {
        self.identity().regions.len()
    }

    /// Who belongs to the cluster.
    fn regions(&self) -> impl Future<Output = Regions> + Send;

    /// Changes who belongs to the cluster.
    ///
    /// Errors: `precondition` if something has to hold first, with what; `unknown_region`.
    fn change_regions(&self, request: RegionsRequest)
    -> impl Future<Output = Result<Regions, Reject>> + Send;

    /// Compares this region's shards with those of others, while writes go on.
    ///
    /// Errors: `unknown_region`; `malformed` if an entry is named that cannot be one.
    fn verify(&self, request: VerifyRequest) -> impl Future<Output = Result<Verification, Reject>> + Send;

    /// What brings this region to what the others hold.
    fn reconciliation(&self) -> impl Future<Output = Reconciliation> + Send;

    /// Writes a checkpoint of every shard now; answers how many.
    fn checkpoint(&self) -> impl Future<Output = Result<usize, Reject>> + Send;
}
