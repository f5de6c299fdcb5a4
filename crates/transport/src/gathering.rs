//! A runtime for QUIC whose drivers let others speak first.
//!
//! A connection's driver is woken by the first write on any of its streams. Were it polled at once, each of the batches
//! that sixteen shards have for a peer in the same moment would leave in a datagram of its own, and cost both sides a
//! system call, a packet and a chain of wake-ups. So a driver that is woken goes to the end of the queue once, behind the
//! tasks that are ready to run: what they write leaves in one go, and what arrives meanwhile is taken in one go. That is
//! one pass through the queue at most; any free worker may run the driver before, as then nobody is held up.

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tokio, with drivers that step back.
#[derive(Debug)]
pub(crate) struct GatheringRuntime;

impl Runtime for GatheringRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Driver) {
        TokioRuntime.spawn(Box::pin(SteppingBack { driver, has_stepped_back: false }));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

struct SteppingBack {
    driver: Driver,
    has_stepped_back: bool,
}

impl Future for SteppingBack {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Another wake-up in between only ends the wait sooner.
        if !self.has_stepped_back {
            self.has_stepped_back = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_stepped_back = false;
        self.driver.as_mut().poll(context)
    }
}
