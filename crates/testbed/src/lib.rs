//! tombolo-testbed
