use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tombolo_codec::decode_peer;
use tombolo_transport::{Hub, InProcess, InProcessLink};

use super::*;
use crate::findings::Findings;
use crate::metrics::Metrics;
use crate::shard::{Command, ShardHandle};

const CLUSTER: ClusterId = ClusterId(7);
const OWN_EPOCH: Epoch = Epoch(1);
const PEER_EPOCH: Epoch = Epoch(2);

fn region(id: u16) -> RegionId {
    RegionId::new(id).unwrap()
}

/// Region 1, which dials, with one shard that is its inbox; and region 2, whose words the test says.
struct Net {
    mesh: Arc<Mesh>,
    peer: InProcess,
    inbox: mpsc::Receiver<Input>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _commands: mpsc::Receiver<Command>,
    _mailbox: mpsc::Sender<Incoming<InProcessLink>>,
}

/// How long the peer has for its hello, and then for its answer.
const WITHIN: Duration = Duration::from_millis(400);

fn net() -> Net {
    let hub = Hub::new();
    let frame_bytes_max = 1 << 20;
    let own = Arc::new(hub.transport(region(1), frame_bytes_max));
    let peer = hub.transport(region(2), frame_bytes_max);
    let (commands, command_inbox) = mpsc::channel(16);
    let (events, inbox) = mpsc::channel(16);
    let shards = Shards::new(vec![ShardHandle::new(commands, events)]);
    let (metrics, findings) = (Arc::new(Metrics::new()), Arc::new(Findings::default()));
    let (installs, _) = mpsc::unbounded_channel();
    let outlets = Arc::new(Outlets::new((region(1), OWN_EPOCH), 1, metrics, findings, installs));
    let name = Own { cluster: CLUSTER, region: region(1), epoch: OWN_EPOCH, shards_count: 1 };
    let members = Members::new(region(1), two(), |_| Ok(()), |_| ());
    let mut mesh = Mesh::new(name, shards, outlets, Arc::new(Skew::new(500)), members);
    mesh.hello_within = WITHIN;
    let mesh = Arc::new(mesh);
    let (mailbox, incoming) = mpsc::channel(4);
    let stop = watch::Sender::new(false);
    let address = peer.local_address().to_string();
    let task = tokio::spawn(mesh.clone().keep(own, region(2), address, incoming, stop.subscribe()));
    Net { mesh, peer, inbox, stop, task, _commands: command_inbox, _mailbox: mailbox }
}

fn two() -> Membership {
    let entry = |(id, name): (u16, &str)| (region(id), name.to_owned(), format!("{name}:1"));
    Membership::of([(1, "a"), (2, "b")].map(entry))
}

fn hello(shards_count: u16, answers: Option<Epoch>) -> PeerMessage {
    PeerMessage::Hello(Hello {
        cluster: CLUSTER,
        region: region(2),
        epoch: PEER_EPOCH,
        version: PEER_VERSION,
        shards_count,
        members: two(),
        answers,
        received: Vec::new(),
        applied: Vec::new(),
        clock: wall(),
    })
}

async fn say(link: &InProcessLink, message: PeerMessage) {
    link.send(Channel::Control, vec![Frame::new(KIND_MESSAGE, message.encode())]).await.unwrap();
}

/// The times between the links that region 1 makes within 3 s, if each of them fares like this.
async fn pauses(net: &Net, fare: impl AsyncFn(&InProcessLink)) -> Vec<Duration> {
    let mut pauses = Vec::new();
    let mut last = Instant::now();
    let watch = async {
        loop {
            let link = net.peer.accept().await.unwrap();
            pauses.push(last.elapsed());
            last = Instant::now();
            fare(&link).await;
            link.closed().await;
        }
    };
    let _: Result<(), _> = timeout(Duration::from_secs(3), watch).await;
    pauses.split_off(1)
}

#[tokio::test]
async fn a_peer_whose_hello_is_refused_is_dialled_again_only_after_a_pause() {
    let net = net();
    let pauses = pauses(&net, async |link| say(link, hello(9, None)).await).await;
    assert!(pauses.is_empty(), "{pauses:?}");
    let findings = net.mesh.outlets.findings.list();
    assert!(findings[0].text.contains("has 9 shards, this daemon 1"), "{findings:?}");
}

#[tokio::test]
async fn a_peer_that_refuses_this_side_is_dialled_ever_more_rarely() {
    let net = net();
    let pauses = pauses(&net, async |link| link.close("it has 9 shards")).await;
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
    assert!(pauses[0] >= ATTEMPT_EVERY && (2..=3).contains(&pauses.len()), "{pauses:?}");
}

#[tokio::test]
async fn a_peer_that_never_answers_the_hello_is_let_go() {
    let net = net();
    let link = net.peer.accept().await.unwrap();
    say(&link, hello(1, None)).await;
    let ended = timeout(WITHIN * 4, link.closed()).await.unwrap().to_string();
    assert!(ended.contains("did not answer the hello in time"), "{ended}");
    // One that answers stays.
    let link = net.peer.accept().await.unwrap();
    say(&link, hello(1, None)).await;
    say(&link, hello(1, Some(OWN_EPOCH))).await;
    assert!(timeout(WITHIN * 4, link.closed()).await.is_err());
}

#[tokio::test]
async fn a_link_that_stood_is_made_again_at_once_when_it_breaks() {
    let mut net = net();
    let link = net.peer.accept().await.unwrap();
    say(&link, hello(1, None)).await;
    say(&link, hello(1, Some(OWN_EPOCH))).await;
    while !matches!(net.inbox.recv().await.unwrap(), Input::PeerAnswer { .. }) {}
    tokio::time::sleep(Duration::from_secs(1)).await;
    link.close("broken");
    let broken = Instant::now();
    net.peer.accept().await.unwrap();
    assert!(broken.elapsed() < ATTEMPT_EVERY, "{:?}", broken.elapsed());
}

#[tokio::test]
async fn a_daemon_that_stops_says_goodbye_and_then_ends_the_link() {
    let net = net();
    let link = net.peer.accept().await.unwrap();
    say(&link, hello(1, None)).await;
    say(&link, hello(1, Some(OWN_EPOCH))).await;
    net.stop.send_replace(true);
    let mut said = Vec::new();
    while let Ok(frame) = link.recv(Channel::Control).await {
        said.push(decode_peer(&frame.body).unwrap());
    }
    assert_eq!(said.last(), Some(&PeerMessage::Goodbye));
    timeout(Duration::from_secs(3), net.task).await.unwrap().unwrap();
}
