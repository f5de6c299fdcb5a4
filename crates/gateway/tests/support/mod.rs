//! What the tests of the doors share: a region in memory, and servers on loopback that end with the test.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tombolo_gateway::{DoorStats, serve_http, serve_resp};

use table::Table;

/// Longer than anything in a test takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A door that is being served.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) stats: Arc<DoorStats>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Door {
    /// Shuts the door and waits until it is.
    pub(crate) async fn shut(mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, &mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ended(receiver: oneshot::Receiver<()>) {
    let _ = receiver.await;
}

pub(crate) async fn http(table: &Table) -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stats = Arc::new(DoorStats::new());
    let (shutdown, receiver) = oneshot::channel();
    let task = tokio::spawn(serve_http(listener, table.clone(), stats.clone(), ended(receiver)));
    Door { address, stats, shutdown: Some(shutdown), task }
}

pub(crate) async fn resp(table: &Table) -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stats = Arc::new(DoorStats::new());
    let (shutdown, receiver) = oneshot::channel();
    let task = tokio::spawn(serve_resp(listener, table.clone(), stats.clone(), ended(receiver)));
    Door { address, stats, shutdown: Some(shutdown), task }
}
