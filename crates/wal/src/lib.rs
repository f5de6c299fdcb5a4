//! tombolo-wal
