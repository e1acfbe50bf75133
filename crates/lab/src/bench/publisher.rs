//! Publishes the lines, at a rate or as fast as the server accepts them.
//!
//! Without a rate there is no queue on this side: a `write` that blocks is the server's back-pressure, and
//! the publisher waits with it.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};

use super::{
    clock::{Clock, nanos, seconds},
    handshake::status,
    payload::key_of,
    target::{Endpoint, PublishTarget},
};

/// A server that accepts no byte, or does not answer, for so long ends the run.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How many bytes of an answer's body go into the report.
pub(super) const ANSWER_LEN_MAX: usize = 512;

/// What to publish, and when.
#[derive(Debug, Clone)]
pub(super) struct PublishPlan {
    /// Messages per second over all channels; `None` means as fast as possible.
    pub(super) rate: Option<f64>,
    pub(super) payload_len: usize,
    pub(super) keys: u64,
    /// How long to publish before the measured part begins.
    pub(super) warmup_s: f64,
    /// The measured part ends after this time ...
    pub(super) duration_s: f64,
    /// ... or after so many messages, whichever is first.
    pub(super) messages: Option<u64>,
    /// Writes a line from its key, its sequence number, its send time, and its length.
    pub(super) write: fn(&mut String, &str, u64, u64, usize),
}

/// What was published.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// By channel, including the warm-up.
    pub(super) by_channel: Vec<u64>,
    /// Messages in the measured part.
    pub(super) measured: u64,
    pub(super) measured_s: f64,
    /// The longest delay of a message at a rate.
    pub(super) late_ns_max: u64,
    /// The server's answer at the end of each `POST`.
    pub(super) answers: Vec<Answer>,
}

/// A server's answer to a `POST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// An open connection for publishing.
#[derive(Debug)]
enum Pipe {
    Post(TcpStream),
    Lines(TcpStream),
}

/// The connections of a run, open and idle.
#[derive(Debug)]
pub(super) struct Publisher {
    pipes: Vec<Pipe>,
    clock: Clock,
}

/// A publisher that runs.
#[derive(Debug)]
pub(super) struct Publishing(thread::JoinHandle<anyhow::Result<Published>>);

impl Publishing {
    /// Waits for the end of the plan.
    pub(super) fn end(self) -> anyhow::Result<Published> {
        self.0.join().map_err(|_| anyhow!("the publisher panicked"))?
    }
}

impl Published {
    pub(super) fn per_s(&self) -> Option<f64> {
        (self.measured_s > 0.0).then(|| self.measured as f64 / self.measured_s)
    }

    pub(super) fn late_us_max(&self) -> f64 {
        self.late_ns_max as f64 / 1e3
    }
}

impl Publisher {
    /// Connects, so that a wrong address fails before anything is measured. `None` if somebody else
    /// publishes.
    pub(super) fn connect(target: &PublishTarget, clock: Clock) -> anyhow::Result<Option<Self>> {
        let pipes = match target {
            PublishTarget::None => return Ok(None),
            PublishTarget::Tcp(address) => vec![Pipe::Lines(connect(*address)?)],
            PublishTarget::Http(endpoints) => endpoints.iter().map(Pipe::post).collect::<Result<_, _>>()?,
        };
        Ok(Some(Self { pipes, clock }))
    }

    /// Publishes on a thread of its own.
    pub(super) fn start(self, plan: PublishPlan) -> anyhow::Result<Publishing> {
        let named = thread::Builder::new().name("bench-publisher".to_owned());
        Ok(Publishing(named.spawn(move || self.run(&plan)).context("cannot start the publisher")?))
    }

    /// Publishes to the end of the plan and closes the connections. Sequence numbers count from zero in each
    /// channel; channels take turns.
    pub(super) fn run(mut self, plan: &PublishPlan) -> anyhow::Result<Published> {
        let channels = self.pipes.len();
        let mut published = Published { by_channel: vec![0; channels], ..Published::default() };
        let started_ns = self.clock.now_ns();
        let measured_from_ns = started_ns + nanos(plan.warmup_s);
        let ends_ns = measured_from_ns + nanos(plan.duration_s);
        let (mut line, mut wire) = (String::new(), Vec::new());
        for n in 0u64.. {
            let due_ns = match plan.rate {
                Some(rate) => started_ns + nanos(n as f64 / rate),
                None => self.clock.now_ns(),
            };
            self.sleep_until(due_ns.min(ends_ns));
            let now_ns = self.clock.now_ns();
            // The clock decides too: a server that is slower than the rate must not prolong the run.
            let is_enough = plan.messages.is_some_and(|messages| published.measured >= messages);
            if is_enough || due_ns.max(now_ns) >= ends_ns {
                break;
            }
            let channel = n as usize % channels;
            let seq = published.by_channel[channel];
            line.clear();
            (plan.write)(&mut line, &key_of(seq, plan.keys), seq, now_ns, plan.payload_len);
            self.pipes[channel].send(&line, &mut wire)?;
            published.by_channel[channel] += 1;
            if due_ns >= measured_from_ns {
                published.measured += 1;
                published.late_ns_max = published.late_ns_max.max(now_ns - due_ns);
            }
        }
        published.measured_s = seconds(self.clock.now_ns().saturating_sub(measured_from_ns));
        for pipe in self.pipes {
            published.answers.extend(pipe.finish()?);
        }
        Ok(published)
    }

    fn sleep_until(&self, due_ns: u64) {
        let now_ns = self.clock.now_ns();
        if due_ns > now_ns {
            thread::sleep(Duration::from_nanos(due_ns - now_ns));
        }
    }
}

impl Pipe {
    fn post(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let mut stream = connect(endpoint.address)?;
        write!(
            stream,
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-ndjson\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n{}\r\n",
            endpoint.path,
            endpoint.host,
            endpoint.token.line()
        )
        .context("cannot start the POST")?;
        Ok(Self::Post(stream))
    }

    /// Sends one line in one `write`; a `POST` has one chunk per line.
    fn send(&mut self, line: &str, wire: &mut Vec<u8>) -> anyhow::Result<()> {
        wire.clear();
        let stream = match self {
            Self::Lines(stream) => {
                writeln!(wire, "{line}")?;
                stream
            }
            Self::Post(stream) => {
                write!(wire, "{:x}\r\n{line}\n\r\n", line.len() + 1)?;
                stream
            }
        };
        stream.write_all(wire).map_err(|error| self.explain(error))
    }

    /// Ends the connection; a `POST` has an answer, and any but success is an error.
    fn finish(self) -> anyhow::Result<Option<Answer>> {
        let Self::Post(mut stream) = self else { return Ok(None) };
        stream.write_all(b"0\r\n\r\n").context("cannot end the POST")?;
        let answer = read_answer(&mut stream).context("the POST was not answered")?;
        if !(200..300).contains(&answer.status) {
            bail!("the POST ended with status {}: {}", answer.status, answer.body);
        }
        Ok(Some(answer))
    }

    /// Adds the answer with which a server refuses a `POST` before closing it.
    fn explain(&mut self, error: io::Error) -> anyhow::Error {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return anyhow!("the server accepted nothing for {} s", PATIENCE.as_secs());
        }
        match self {
            Self::Post(stream) => match read_answer(stream) {
                Ok(answer) => {
                    anyhow!("the POST was cut with status {}: {}", answer.status, answer.body)
                }
                Err(_) => anyhow::Error::new(error).context("the POST was cut without an answer"),
            },
            Self::Lines(_) => anyhow::Error::new(error).context("the publishing connection was cut"),
        }
    }
}

fn connect(address: std::net::SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("cannot connect to {address} to publish"))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads until the answer is complete, the server closes (the request asks it to), or there is enough to
/// show.
fn read_answer(stream: &mut impl Read) -> anyhow::Result<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if bytes.is_empty() => return Err(error.into()),
            Err(_) => break,
        }
        if bytes.len() > 16 * 1024 || is_whole(&String::from_utf8_lossy(&bytes)) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is not http")?;
    let status = status(head).context("the answer is not http")?;
    Ok(Answer { status, body: body.chars().take(ANSWER_LEN_MAX).collect() })
}

/// Whether the answer is complete, by its length or its last chunk.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match header("content-length:").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        None => header("transfer-encoding:").is_some() && body.ends_with("0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::bench::payload::write_line;
    use crate::bench::target;

    /// Accepts one connection, reads until `end`, replies, and returns what it read.
    fn server(end: &'static [u8], reply: &'static [u8]) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let reader = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut got, mut chunk) = (Vec::new(), [0; 4096]);
            while end.is_empty() || !got.ends_with(end) {
                match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => got.extend_from_slice(&chunk[..read]),
                }
            }
            stream.write_all(reply).unwrap();
            String::from_utf8(got).unwrap()
        });
        (address, reader)
    }

    fn plan(rate: Option<f64>, messages: Option<u64>, duration_s: f64) -> PublishPlan {
        let write = write_line;
        PublishPlan { rate, payload_len: 120, keys: 1, warmup_s: 0.0, duration_s, messages, write }
    }

    fn publish(target: &str, plan: &PublishPlan) -> anyhow::Result<Published> {
        let target = target::publish(target, 1, false)?;
        Publisher::connect(&target, Clock::start())?.expect("a publisher").run(plan)
    }

    #[test]
    fn a_post_carries_one_chunk_per_line() {
        let (address, server) = server(b"0\r\n\r\n", b"HTTP/1.1 202 Accepted\r\n\r\n{\"accepted\":3}");
        let published = publish(&format!("http://{address}/in"), &plan(None, Some(3), 5.0)).unwrap();
        assert_eq!(published.by_channel, [3]);
        assert_eq!(published.answers, [Answer { status: 202, body: "{\"accepted\":3}".to_owned() }]);
        let got = server.join().unwrap();
        assert!(got.starts_with("POST /in HTTP/1.1\r\n"));
        assert_eq!(got.matches("\r\n79\r\n{\"key\":\"bench\"").count(), 3, "{got}");
    }

    #[test]
    fn a_refused_post_is_an_error_with_the_reason() {
        let (address, server) = server(b"0\r\n\r\n", b"HTTP/1.1 409 Conflict\r\n\r\nnot here");
        let error = publish(&format!("http://{address}/in"), &plan(None, Some(1), 5.0)).unwrap_err();
        assert!(error.to_string().contains("409: not here"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn an_answer_ends_by_its_length_or_its_last_chunk() {
        assert!(is_whole("HTTP/1.1 202 A\r\nContent-Length: 2\r\n\r\nok"));
        assert!(!is_whole("HTTP/1.1 202 A\r\nContent-Length: 3\r\n\r\nok"));
        assert!(is_whole("HTTP/1.1 202 A\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
        assert!(!is_whole("HTTP/1.1 202 A\r\n\r\nok"));
        assert!(!is_whole("HTTP/1.1 202 A\r\n"));
    }

    #[test]
    fn lines_go_out_at_the_rate() {
        let (address, server) = server(b"", b"");
        let published = publish(&format!("tcp://{address}"), &plan(Some(200.0), None, 0.1)).unwrap();
        // A busy machine may skip some, but never sends more.
        let sent = published.by_channel[0];
        assert!((1..=20).contains(&sent) && published.measured_s >= 0.09, "{published:?}");
        assert_eq!(server.join().unwrap().lines().count() as u64, sent);
    }

    #[test]
    fn the_warm_up_is_published_but_not_measured() {
        let (address, server) = server(b"", b"");
        let plan = PublishPlan { warmup_s: 0.05, ..plan(Some(200.0), Some(5), 1.0) };
        let published = publish(&format!("tcp://{address}"), &plan).unwrap();
        assert_eq!((published.by_channel[0], published.measured), (15, 5));
        assert_eq!(server.join().unwrap().lines().count(), 15);
    }
}
