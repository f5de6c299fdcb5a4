//! What becomes of a shard over time: it starts and becomes whole, joins without data, sees regions come and go, and lets
//! go of what nobody needs any more.

pub(crate) mod joining;
pub(crate) mod members;
pub(crate) mod stability;
pub(crate) mod whole;
