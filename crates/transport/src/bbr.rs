//! BBR with a ceiling on the bytes in flight.
//!
//! quinn's BBR lets its window grow to gigabytes, and something has to hold it. If the receive window of the connection
//! does, a few lanes that nobody reads use that window up and silence the control channel with them. The ceiling here
//! bounds what is in flight and leaves the receive window wide enough for every channel at once.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{BbrConfig, Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// Makes [`CappedBbr`]s.
#[derive(Debug)]
pub(crate) struct CappedBbrConfig {
    pub(crate) bbr: Arc<BbrConfig>,
    pub(crate) in_flight_bytes_max: u64,
}

impl ControllerFactory for CappedBbrConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = self.bbr.clone().build(now, current_mtu);
        Box::new(CappedBbr { inner, in_flight_bytes_max: self.in_flight_bytes_max })
    }
}

struct CappedBbr {
    inner: Box<dyn Controller>,
    in_flight_bytes_max: u64,
}

impl Controller for CappedBbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window().min(self.in_flight_bytes_max)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), in_flight_bytes_max: self.in_flight_bytes_max })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window().min(self.in_flight_bytes_max)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
