//! The client side of a run: one epoll loop per thread, and its counters.
//!
//! An event loop (`event_loop`) is the measuring instrument, so it must be cheaper than any server:
//! edge-triggered polling registered once per socket, one `read` per readiness into a shared buffer, frames
//! parsed in place, and no lock. The main thread observes its progress through the counters in [`Progress`],
//! and gets the whole [`Tally`] when the loop ends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use anyhow::anyhow;
use hdrhistogram::Histogram;

use super::{
    clock::Clock,
    event_loop::EventLoop,
    sequence::{SequenceChecker, SequenceCounts},
    target::Endpoint,
};
use crate::figures::add_counts;

/// A connection to be opened, and its purpose.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) channel: usize,
    /// Whether it stops reading once it is open.
    pub(super) stalled: bool,
    /// The text frame to send once it is open.
    pub(super) hello: Option<Arc<str>>,
}

/// What a loop does with its seats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Open each once, then read until told to stop.
    #[default]
    Hold,
    /// Close each as soon as it is open and open it again, until told to stop.
    Churn,
}

/// The settings that the loops share.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientPlan {
    pub(super) purpose: Purpose,
    /// How many handshakes each loop has in progress at once.
    pub(super) open_concurrency: usize,
    pub(super) handshake_timeout_s: f64,
    pub(super) headers: Vec<String>,
    /// Whether a seat is ready only after a frame with `"type":"subscribed"`.
    pub(super) expect_subscribed: bool,
    /// Whether this run publishes itself: sequences then start at zero, and older messages are leftovers of
    /// another run.
    pub(super) own_messages: bool,
    /// When the run began.
    pub(super) started_ns: u64,
    /// For how many measured messages each loop stores the time of arrival.
    pub(super) arrivals_max: usize,
}

/// The loops' progress, for the main thread, and its commands to them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Set by the main thread: the loops must end.
    pub(super) stop: AtomicBool,
    /// Set by the main thread: messages sent before this do not count in the latency.
    pub(super) measure_from_ns: AtomicU64,
    /// Connections that are open and, if required, subscribed.
    pub(super) ready: AtomicUsize,
    pub(super) failed: AtomicUsize,
    /// Handshakes that succeeded.
    pub(super) opened: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) last_delivery_ns: AtomicU64,
    /// Bytes of frames with messages, including envelope and frame header.
    pub(super) delivered_bytes: AtomicU64,
}

/// The results of a loop.
#[derive(Debug)]
pub(super) struct Tally {
    /// Receive time minus send time, in nanoseconds.
    pub(super) latency_ns: Histogram<u64>,
    /// From `connect` to a checked response.
    pub(super) handshake_ns: Histogram<u64>,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) closed_by_code: BTreeMap<u16, u64>,
    pub(super) broken_frames: u64,
    pub(super) other_frames: u64,
    pub(super) stale: u64,
    pub(super) pings: u64,
    /// Send time and receive time of single messages, if requested.
    pub(super) arrivals: Vec<(u64, u64)>,
    /// For each subscriber that reads: its channel, and the check of its sequences.
    pub(super) subscribers: Vec<(usize, SequenceChecker)>,
}

/// The running loops.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) progress: Arc<Progress>,
    loops: Vec<JoinHandle<anyhow::Result<Tally>>>,
}

impl Client {
    /// Starts `threads` loops, which divide the seats among themselves.
    pub(super) fn start(
        seats: Vec<Seat>,
        plan: &ClientPlan,
        threads: usize,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let progress = Arc::new(Progress::default());
        progress.measure_from_ns.store(u64::MAX, Relaxed);
        let plan = ClientPlan { open_concurrency: plan.open_concurrency.div_ceil(threads), ..plan.clone() };
        let mut loops = Vec::new();
        for thread in 0..threads {
            let seats = seats.iter().skip(thread).step_by(threads).cloned().collect();
            let event_loop = EventLoop::new(seats, plan.clone(), clock, Arc::clone(&progress))?;
            let name = format!("bench-client-{thread}");
            loops.push(thread::Builder::new().name(name).spawn(move || event_loop.run())?);
        }
        Ok(Self { progress, loops })
    }

    /// Whether a loop ended without being told to.
    pub(super) fn has_died(&self) -> bool {
        self.loops.iter().any(JoinHandle::is_finished)
    }

    /// Tells the loops to close everything, and collects their results.
    pub(super) fn finish(self) -> anyhow::Result<Tally> {
        self.progress.stop.store(true, Relaxed);
        let mut total = Tally::new();
        for handle in self.loops {
            total.add(handle.join().map_err(|_| anyhow!("a client loop panicked"))??)?;
        }
        Ok(total)
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            latency_ns: histogram(),
            handshake_ns: histogram(),
            failures: BTreeMap::new(),
            closed_by_code: BTreeMap::new(),
            broken_frames: 0,
            other_frames: 0,
            stale: 0,
            pings: 0,
            arrivals: Vec::new(),
            subscribers: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.latency_ns.add(&other.latency_ns)?;
        self.handshake_ns.add(&other.handshake_ns)?;
        add_counts(&mut self.failures, &other.failures);
        add_counts(&mut self.closed_by_code, &other.closed_by_code);
        self.broken_frames += other.broken_frames;
        self.other_frames += other.other_frames;
        self.stale += other.stale;
        self.pings += other.pings;
        self.arrivals.extend(other.arrivals);
        self.subscribers.extend(other.subscribers);
        Ok(())
    }

    /// The sum over all subscribers, given how many messages were published to each channel.
    pub(super) fn sequences(&self, published: Option<&[u64]>) -> SequenceCounts {
        let mut sum = SequenceCounts::default();
        for (channel, checker) in &self.subscribers {
            sum += checker.finish(published.map(|by_channel| by_channel[*channel]));
        }
        sum
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Three digits from 1 us to 10 minutes; anything longer counts as 10 minutes.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("the bounds are valid")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    };

    use super::*;
    use crate::bench::target::Token;

    /// A server that passes each connection to `serve`, and its endpoint.
    fn server(connections: usize, serve: fn(TcpStream)) -> (Endpoint, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (host, path, token) = (address.to_string(), "/ws".to_owned(), Token::default());
        let endpoint = Endpoint { address, host, path, token };
        let serving = thread::spawn(move || {
            for _ in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                serve(stream);
            }
        });
        (endpoint, serving)
    }

    fn client(endpoint: Endpoint, seats: usize) -> Client {
        let clock = Clock::start();
        let seat =
            Seat { endpoint: Arc::new(endpoint), channel: 0, stalled: false, hello: Some("hello".into()) };
        let plan = ClientPlan {
            open_concurrency: 1,
            handshake_timeout_s: 10.0,
            expect_subscribed: true,
            own_messages: true,
            started_ns: 1000,
            ..ClientPlan::default()
        };
        Client::start(vec![seat; seats], &plan, 1, clock).unwrap()
    }

    /// Says hello, pings, sends four messages of which one is old, and closes.
    fn talk(stream: TcpStream) {
        let mut socket = tungstenite::accept(stream).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text("hello"));
        socket.send(Message::text(r#"{"type":"subscribed"}"#)).unwrap();
        socket.send(Message::Ping("are you there".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
        for (seq, sent_ns) in [(9, 999), (0, 2000), (2, 2000), (2, 2000)] {
            let text = format!(r#"{{"data":{{"seq":{seq},"sent_ns":{sent_ns}}}}}"#);
            socket.send(Message::text(text)).unwrap();
        }
        let close = CloseFrame { code: CloseCode::Library(4001), reason: "bye".into() };
        socket.close(Some(close)).unwrap();
        // Until the client's reply, or its reset.
        while socket.read().is_ok() {}
    }

    #[test]
    fn a_conversation_is_counted() {
        let (endpoint, serving) = server(2, talk);
        let client = client(endpoint, 2);
        serving.join().unwrap();
        assert_eq!(client.progress.ready.load(Relaxed), 2);
        let tally = client.finish().unwrap();
        assert_eq!(tally.closed_by_code, BTreeMap::from([(4001, 2)]));
        assert_eq!((tally.other_frames, tally.pings, tally.stale, tally.broken_frames), (2, 2, 2, 0));
        assert_eq!(tally.handshake_ns.len(), 2);
        let counts = tally.sequences(Some(&[4]));
        assert_eq!(counts, SequenceCounts { received: 6, lost: 4, doubled: 2, reordered: 0 });
    }

    #[test]
    fn a_refusal_is_counted_by_its_reason() {
        let (endpoint, serving) = server(3, |mut stream| {
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let client = client(endpoint, 3);
        serving.join().unwrap();
        while client.progress.failed.load(Relaxed) < 3 {
            thread::yield_now();
        }
        let tally = client.finish().unwrap();
        assert_eq!(tally.failures, BTreeMap::from([("status 503".to_owned(), 3)]));
    }
}
