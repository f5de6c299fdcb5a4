//! tombolo-crdt
