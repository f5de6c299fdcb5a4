use std::net::SocketAddr;

use tombolo_causality::ClusterId;

use super::*;
use crate::{FrameError, Identity, Members, QuicSettings, QuicTransport, Transport, create_authority};

async fn joined() -> (QuicTransport, QuicTransport, QuicLink, QuicLink) {
    let cluster = ClusterId(1);
    let authority = create_authority(cluster).unwrap();
    let regions = [(RegionId::new(1).unwrap(), "a".to_owned()), (RegionId::new(2).unwrap(), "b".to_owned())];
    let [a, b] = ["a", "b"].map(|name| {
        let issued = authority.issue_region(cluster, name).unwrap();
        let identity = Identity::from_pem(&authority.cert_pem, &issued.cert_pem, &issued.key_pem).unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let members = Members::new(cluster, regions.clone());
        QuicTransport::bind(anywhere, identity, members, QuicSettings::default()).unwrap()
    });
    let (near, far) = tokio::join!(a.connect(regions[1].0, b.local_address()), b.accept());
    (a, b, near.unwrap(), far.unwrap())
}

async fn write(link: &QuicLink, bytes: &[u8]) -> quinn::SendStream {
    let mut stream = link.0.connection.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn a_stream_for_no_channel_ends_the_link_with_the_reason() {
    let (_a, _b, near, far) = joined().await;
    let _stream = write(&near, &[17]).await;
    assert_eq!(far.closed().await, LinkError::UnknownChannel { index: 17 });
    assert_eq!(far.recv(Channel::Control).await, Err(LinkError::UnknownChannel { index: 17 }));
    let LinkError::ClosedByPeer { reason } = near.closed().await else { panic!("not told") };
    assert!(reason.contains("channel 17"), "{reason}");
}

#[tokio::test]
async fn a_second_stream_for_a_channel_ends_the_link_with_the_reason() {
    let (_a, _b, near, far) = joined().await;
    let _streams = (write(&near, &[3]).await, write(&near, &[3]).await);
    assert_eq!(far.closed().await, LinkError::ChannelTwice { channel: Channel::Lane(2) });
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_link_with_the_reason() {
    let (_a, _b, near, far) = joined().await;
    let _stream = write(&near, &[1, 0, 0, 0, 0]).await;
    assert_eq!(far.recv(Channel::Lane(0)).await, Err(FrameError::Empty.into()));
    assert_eq!(far.closed().await, FrameError::Empty.into());
    assert!(matches!(near.closed().await, LinkError::ClosedByPeer { .. }));
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_ends_the_link() {
    let (_a, _b, near, far) = joined().await;
    write(&near, &[1, 3, 0, 0, 0, 9]).await.finish().unwrap();
    let torn = FrameError::Torn { missing_bytes_min: 2 };
    assert_eq!(far.recv(Channel::Lane(0)).await, Err(torn.into()));
}

#[tokio::test]
async fn a_stream_without_its_first_byte_holds_up_no_other() {
    let (_a, _b, near, far) = joined().await;
    // It appears to the other side with the end of a later stream, and says nothing.
    let _silent = near.0.connection.open_uni().await.unwrap();
    near.send(Channel::Lane(5), vec![Frame::new(1, &b"x"[..])]).await.unwrap();
    assert_eq!(far.recv(Channel::Lane(5)).await.unwrap().body, "x");
}

/// One worker, as what counts is the order in which it runs its tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_all_lanes_write_in_a_moment_leaves_in_few_packets() {
    let (_a, _b, near, far) = joined().await;
    let lanes = || (0..crate::LANES_MAX).map(Channel::Lane);
    let frame = || vec![Frame::new(1, vec![7; 10])];
    for lane in lanes() {
        near.send(lane, frame()).await.unwrap();
        far.recv(lane).await.unwrap();
    }
    let mut counts = Vec::new();
    for _ in 0..10 {
        let (before, speaker) = (near.stats().sent_packets, near.clone());
        let spoken = tokio::spawn(async move {
            for lane in lanes() {
                let speaker = speaker.clone();
                tokio::spawn(async move { speaker.send(lane, frame()).await.unwrap() });
            }
        });
        spoken.await.unwrap();
        for lane in lanes() {
            far.recv(lane).await.unwrap();
        }
        counts.push(near.stats().sent_packets - before);
    }
    // Acknowledgements count too. Without stepping back each lane has a packet of its own.
    counts.sort_unstable();
    assert!(counts[counts.len() / 2] <= 6, "packets for {} frames: {counts:?}", crate::LANES_MAX);
}
