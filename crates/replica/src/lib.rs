//! tombolo-replica
