//! A TCP proxy whose connections a test can cut, or keep or lose the answers of.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the answer has in it that is lost next.
type Lost = Arc<Mutex<Option<Vec<u8>>>>;

/// Hands connections on until it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    cuts: watch::Sender<u64>,
    held: watch::Sender<bool>,
    lost: Lost,
    _running: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let proxy = Self::to_nowhere().await;
        proxy.lead_to(to);
        proxy
    }

    /// Closes each connection after what it says first, until it is told where to.
    pub(crate) async fn to_nowhere() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((cuts, cut), (to, target)) = (watch::channel(0), watch::channel(None));
        let (held, is_held) = watch::channel(false);
        let (mut running, lost) = (JoinSet::new(), Lost::default());
        let (is_lost, cutting) = (Arc::clone(&lost), cuts.clone());
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let mut cut = cut.clone();
                cut.mark_unchanged();
                connections.spawn(hand_on(
                    client,
                    *target.borrow(),
                    cut,
                    Answers { held: is_held.clone(), lost: Arc::clone(&is_lost), cuts: cutting.clone() },
                ));
            }
        });
        Self { address, to, cuts, held, lost, _running: running }
    }

    pub(crate) fn lead_to(&self, to: SocketAddr) {
        self.to.send_replace(Some(to));
    }

    /// Cuts every connection, and leads new ones nowhere until it is told where to again.
    pub(crate) fn lead_nowhere(&self) {
        self.to.send_replace(None);
        self.cut();
    }

    /// Where it takes HTTP.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection that there is, without a word to either side.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Keeps answers back, or lets them go on; requests arrive all the same.
    pub(crate) fn hold_answers(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Cuts every connection when the server answers with these bytes, which nobody gets; once.
    pub(crate) fn lose_answer(&self, with: &[u8]) {
        *self.lost.lock().unwrap() = Some(with.to_vec());
    }

    /// Whether there was such an answer.
    pub(crate) fn has_lost_answer(&self) -> bool {
        self.lost.lock().unwrap().is_none()
    }
}

/// What becomes of answers.
struct Answers {
    held: watch::Receiver<bool>,
    lost: Lost,
    cuts: watch::Sender<u64>,
}

impl Answers {
    /// Whether an answer is the one to be lost; then all connections are cut.
    fn lose(&self, answer: &[u8]) -> bool {
        let mut lost = self.lost.lock().unwrap();
        let is_it = |with: &Vec<u8>| answer.windows(with.len()).any(|part| part == with);
        if lost.take_if(|with| is_it(with)).is_none() {
            return false;
        }
        self.cuts.send_modify(|cuts| *cuts += 1);
        true
    }
}

async fn hand_on(
    mut client: TcpStream,
    to: Option<SocketAddr>,
    mut cut: watch::Receiver<u64>,
    answering: Answers,
) {
    let Some(to) = to else {
        let _said = client.read(&mut [0; 1024]).await;
        return;
    };
    let mut server = TcpStream::connect(to).await.unwrap();
    let ((mut from_client, mut to_client), (from_server, mut to_server)) = (client.split(), server.split());
    let both = async {
        tokio::join!(
            async {
                let _ended = io::copy(&mut from_client, &mut to_server).await;
                let _told = to_server.shutdown().await;
            },
            async {
                let _ended = answers(from_server, &mut to_client, answering).await;
                let _told = to_client.shutdown().await;
            },
        )
    };
    tokio::select! {
        _ended = both => {}
        _cut = cut.changed() => {}
    }
}

async fn answers(
    mut from: impl io::AsyncRead + Unpin,
    to: &mut (impl io::AsyncWrite + Unpin),
    mut answering: Answers,
) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    loop {
        let len = from.read(&mut bytes).await?;
        let is_over = len == 0 || answering.held.wait_for(|held| !held).await.is_err();
        if is_over || answering.lose(&bytes[..len]) {
            return Ok(());
        }
        to.write_all(&bytes[..len]).await?;
    }
}
