//! The physical limit of a fan-out, as a server to measure beside the gateway.
//!
//! A message for N sockets takes N calls of `write`: without a faster kernel interface, no server that sends
//! each message as it arrives can do with less. This server does that and nothing else: one thread, one event
//! loop, no queue, no timer, no lock, no parsing of what clients send. Each line is encoded into a frame
//! once, and each connection gets it in exactly one non-blocking `write`. Its cost per delivery is the
//! kernel's, so the difference to a gateway is the gateway's own cost.
//!
//! A server that gathers several messages into one `write` can be faster than this one without a rate limit,
//! since it makes fewer calls. That is a real gain, which is why the comparison is also made at a fixed rate.
//!
//! When a socket is full, the rest of the frame is kept, and the publisher is not read until it is written:
//! nothing is lost, and one slow reader holds back everyone. A gateway must not do that; a yardstick may.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener as StdListener},
};

use clap::Parser;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Socket, Type};
use tungstenite::{
    handshake::derive_accept_key,
    protocol::frame::{
        FrameHeader,
        coding::{Data, OpCode},
    },
};

const LISTENER: Token = Token(usize::MAX - 1);
const INGEST: Token = Token(usize::MAX - 2);
const PUBLISHER: Token = Token(usize::MAX - 3);

/// Longest request head, and longest line.
const LEN_MAX: usize = 1024 * 1024;

/// A bare WebSocket fan-out server.
#[derive(Debug, Parser)]
struct Args {
    /// Where WebSocket clients connect, on any path.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where a publisher connects and sends lines.
    #[arg(long, default_value = "127.0.0.1:0")]
    ingest: SocketAddr,
}

/// One client socket.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    /// The request so far; `None` once it was answered.
    request: Option<Vec<u8>>,
    /// The bytes that the socket has not accepted yet.
    rest: Vec<u8>,
}

#[derive(Debug)]
struct Server {
    poll: Poll,
    /// Indexed by token; the entry of a closed client is reused.
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    publisher: Option<TcpStream>,
    /// Published bytes that were not forwarded yet; the first line starts at `lines_from`.
    lines: Vec<u8>,
    lines_from: usize,
    frame: Vec<u8>,
    /// How many clients have bytes left to write. Nothing is forwarded until this is zero.
    behind: usize,
    scratch: Vec<u8>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut listener = listen(args.listen)?;
    let mut ingest = listen(args.ingest)?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut ingest, INGEST, Interest::READABLE)?;
    println!("listening {} ingest {}", listener.local_addr()?, ingest.local_addr()?);
    let mut server = Server {
        poll,
        clients: Vec::new(),
        free: Vec::new(),
        publisher: None,
        lines: Vec::new(),
        lines_from: 0,
        frame: Vec::new(),
        behind: 0,
        scratch: vec![0; 64 * 1024],
    };
    let mut events = Events::with_capacity(4096);
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept_clients(&listener)?,
                INGEST => server.accept_publisher(&ingest)?,
                PUBLISHER => {}
                Token(client) => {
                    server.flush(client);
                    server.hear(client);
                }
            }
        }
        // Whatever happened, the publisher may be readable again.
        server.pump()?;
    }
}

/// Listens with a long backlog, so that a burst of handshakes does not overflow it.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(StdListener::from(socket)))
}

impl Server {
    fn accept_clients(&mut self, listener: &TcpListener) -> io::Result<()> {
        while let Some(mut stream) = accept(listener)? {
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or(self.clients.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(place), interest)?;
            let client = Client { stream, request: Some(Vec::new()), rest: Vec::new() };
            match self.clients.get_mut(place) {
                Some(free) => *free = Some(client),
                None => self.clients.push(Some(client)),
            }
        }
        Ok(())
    }

    fn accept_publisher(&mut self, ingest: &TcpListener) -> io::Result<()> {
        while let Some(mut stream) = accept(ingest)? {
            self.poll.registry().register(&mut stream, PUBLISHER, Interest::READABLE)?;
            self.publisher = Some(stream);
            self.lines.clear();
            self.lines_from = 0;
        }
        Ok(())
    }

    /// Reads from a client: first its request, after that only to notice its end.
    fn hear(&mut self, place: usize) {
        loop {
            let Some(Some(client)) = self.clients.get_mut(place) else { return };
            match client.stream.read(&mut self.scratch) {
                Ok(0) => return self.close(place),
                Ok(read) => {
                    let Some(request) = &mut client.request else { continue };
                    request.extend_from_slice(&self.scratch[..read]);
                    if request.ends_with(b"\r\n\r\n") {
                        match accept_response(request) {
                            Some(response) => {
                                client.request = None;
                                self.write(place, &response);
                            }
                            None => return self.close(place),
                        }
                    } else if request.len() > LEN_MAX {
                        return self.close(place);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(place),
            }
        }
    }

    /// Forwards lines and reads more of them, until there are none or a client is behind.
    fn pump(&mut self) -> io::Result<()> {
        while self.behind == 0 {
            let waiting = &self.lines[self.lines_from..];
            if let Some(len) = waiting.iter().position(|byte| *byte == b'\n') {
                let line = self.lines_from..self.lines_from + len;
                self.lines_from = line.end + 1;
                encode(&mut self.frame, &self.lines[line])?;
                self.fan_out();
                continue;
            }
            self.lines.drain(..self.lines_from);
            self.lines_from = 0;
            let Some(publisher) = &mut self.publisher else { return Ok(()) };
            match publisher.read(&mut self.scratch) {
                Ok(read) if read > 0 && self.lines.len() < LEN_MAX => {
                    self.lines.extend_from_slice(&self.scratch[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => self.publisher = None,
            }
        }
        Ok(())
    }

    /// The measured work: one `write` per open client.
    fn fan_out(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        for place in 0..self.clients.len() {
            if matches!(&self.clients[place], Some(client) if client.request.is_none()) {
                self.write(place, &frame);
            }
        }
        self.frame = frame;
    }

    fn write(&mut self, place: usize, bytes: &[u8]) {
        let Some(Some(client)) = self.clients.get_mut(place) else { return };
        let written = match client.stream.write(bytes) {
            Ok(written) => written,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(_) => return self.close(place),
        };
        if written < bytes.len() {
            self.behind += usize::from(client.rest.is_empty());
            client.rest.extend_from_slice(&bytes[written..]);
            // After a partial write the socket may be writable again already, and then no edge would be
            // reported.
            self.flush(place);
        }
    }

    /// Writes the remaining bytes of a client.
    fn flush(&mut self, place: usize) {
        let Some(Some(client)) = self.clients.get_mut(place) else { return };
        while !client.rest.is_empty() {
            match client.stream.write(&client.rest) {
                Ok(written) => drop(client.rest.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.close(place),
            }
            if client.rest.is_empty() {
                client.rest = Vec::new();
                self.behind -= 1;
            }
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(client) = self.clients.get_mut(place).and_then(Option::take) {
            self.behind -= usize::from(!client.rest.is_empty());
            self.free.push(place);
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// The answer to an upgrade request; `None` if the request has no key.
fn accept_response(request: &[u8]) -> Option<Vec<u8>> {
    let key = std::str::from_utf8(request)
        .ok()?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, value)| value.trim())?;
    let accept = derive_accept_key(key.as_bytes());
    Some(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes(),
    )
}

/// Encodes a line as one unmasked text frame, reusing the buffer.
fn encode(frame: &mut Vec<u8>, line: &[u8]) -> io::Result<()> {
    frame.clear();
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.format(line.len() as u64, frame).map_err(io::Error::other)?;
    frame.extend_from_slice(line);
    Ok(())
}
