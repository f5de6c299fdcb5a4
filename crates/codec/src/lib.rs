//! tombolo-codec
