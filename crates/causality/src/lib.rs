//! Names and order: who wrote, where in which log, and before or after what.
//!
//! Nothing here reads a clock, draws a random number or touches a device: time and chance come in as arguments.
//! Start with [`ids`], then [`Stamp`] and [`HybridClock`], then [`VersionVector`].

mod clock;
pub mod ids;
mod router;
mod stamp;
mod vector;

pub use clock::{ClockRefusal, HybridClock};
pub use ids::{ClusterId, Epoch, IdError, LogId, RegionId, Seq, SessionId, ShardId, TenantId};
pub use router::{Router, RouterError};
pub use stamp::{Stamp, Time};
pub use vector::VersionVector;
