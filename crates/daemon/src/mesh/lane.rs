//! The two ends of a lane: batches of the logs that keep to it, and parts of states behind them.
//!
//! What has far to go travels packed, where that makes it shorter: on a path of milliseconds bytes are dearer than the
//! time of a core, on a short one it is the other way round. Entries of a state always do: a difference is to cost little
//! more than what it brings.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tombolo_causality::ClusterId;
use tombolo_codec::{Batch, PeerMessage, decode_peer};
use tombolo_replica::{Input, Link as LinkId};
use tombolo_transport::{Channel, Frame, Link};

use super::pack::{pack, pack_entries, unpack};
use super::{Ended, KIND_BATCH, KIND_MESSAGE};
use crate::node::{Bulk, PeerOutlet, Shards};

/// Batches handed to the link in one go.
const BATCHES_MAX: usize = 64;
/// From this round trip on frames are packed.
const PACK_RTT_MIN: Duration = Duration::from_millis(5);

/// Sends what shards have for a peer, in order, until the link ends.
pub(super) async fn send<L: Link>(link: L, lane: u8, mut queue: mpsc::UnboundedReceiver<Bulk>) -> Ended {
    let mut batches = Vec::with_capacity(BATCHES_MAX);
    loop {
        if queue.recv_many(&mut batches, BATCHES_MAX).await == 0 {
            // The queues were replaced; whoever did it ends the link.
            return std::future::pending().await;
        }
        let is_far = link.rtt() >= PACK_RTT_MIN;
        let frame = |bulk| {
            let frame = match bulk {
                Bulk::Batch(batch) => Frame::new(KIND_BATCH, batch.bytes().clone()),
                Bulk::Message(message) => {
                    let frame = Frame::new(KIND_MESSAGE, message.encode());
                    if matches!(*message, PeerMessage::Entries { .. }) {
                        return pack_entries(frame);
                    }
                    frame
                }
            };
            if is_far { pack(frame) } else { frame }
        };
        let frames = batches.drain(..).map(frame).collect();
        if let Err(error) = link.send(Channel::Lane(lane), frames).await {
            return error.into();
        }
    }
}

/// Hands what a peer sends on a lane to its shard, until the link ends.
pub(super) async fn receive<L: Link>(
    link: L,
    lane: u8,
    id: LinkId,
    cluster: ClusterId,
    shards: Shards,
    outlet: Arc<PeerOutlet>,
) -> Ended {
    let from = link.peer();
    loop {
        let frame = match link.recv(Channel::Lane(lane)).await {
            Ok(frame) => frame,
            Err(error) => return error.into(),
        };
        let frame = match unpack(frame) {
            Ok(frame) => frame,
            Err(error) => return Ended::Protocol(error.to_string()),
        };
        if frame.kind == KIND_MESSAGE {
            let said = match decode_peer(&frame.body) {
                Ok(message) if message.lane().is_some() => {
                    outlet.count_entries(&message, frame.body.len());
                    Input::said(from, id, message)
                }
                Ok(_) => {
                    return Ended::Protocol("sent a message for the control stream on a lane".to_owned());
                }
                Err(error) => return Ended::Protocol(error.to_string()),
            };
            if let Some((shard, input)) = said {
                shards.tell(shard, input).await;
            }
            continue;
        }
        if frame.kind != KIND_BATCH {
            return Ended::Protocol(format!("sent a frame of kind {} on a lane", frame.kind));
        }
        // Damage on the way is caught by TLS: what does not verify was sent like that.
        let batch = match Batch::verify(frame.body, cluster) {
            Ok(batch) => batch,
            Err(error) => return Ended::Protocol(format!("sent what is no batch: {error}")),
        };
        let shard = batch.header().log.shard;
        if shards.get(shard).is_none() {
            return Ended::Protocol(format!("sent a batch of shard {shard}, which does not exist"));
        }
        shards.tell(shard, Input::Remote { from, link: id, batch }).await;
    }
}
