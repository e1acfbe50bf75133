//! A TCP proxy whose connections a test can cut.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Hands connections on until it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    cuts: watch::Sender<u64>,
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
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let mut cut = cut.clone();
                cut.mark_unchanged();
                connections.spawn(hand_on(client, *target.borrow(), cut));
            }
        });
        Self { address, to, cuts, _running: running }
    }

    pub(crate) fn lead_to(&self, to: SocketAddr) {
        self.to.send_replace(Some(to));
    }

    /// Where it takes HTTP.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection that there is, without a word to either side.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn hand_on(mut client: TcpStream, to: Option<SocketAddr>, mut cut: watch::Receiver<u64>) {
    let Some(to) = to else {
        let _said = client.read(&mut [0; 1024]).await;
        return;
    };
    let mut server = TcpStream::connect(to).await.unwrap();
    tokio::select! {
        _ended = copy_bidirectional(&mut client, &mut server) => {}
        _cut = cut.changed() => {}
    }
}
