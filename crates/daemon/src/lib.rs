//! tombolo-daemon
