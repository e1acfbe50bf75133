//! The destination of log lines: a bounded buffer, and a thread that writes them out.
//!
//! Logging never waits for the reader of the log. If the reader is gone, the disk is full, or nobody
//! empties a pipe, lines are lost; they are counted, and reported once a line can be written again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// The most bytes of lines that wait to be written. Beyond that, new lines are lost.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A handle that puts lines into the buffer.
#[derive(Debug, Clone)]
pub(super) struct LineWriter(Arc<Buffer>);

#[derive(Debug, Default)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Signalled when there is something to write.
    filled: Condvar,
    /// Signalled when everything was written.
    emptied: Condvar,
    /// The writing thread. Its own line, about lost lines, always finds room.
    writes: OnceLock<ThreadId>,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the thread is writing a line that it took.
    writing: bool,
    /// Lines lost since the start.
    lost: u64,
    /// How many of them were reported.
    told: u64,
}

impl Buffer {
    /// How many lines were lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.state.lock().lost
    }

    /// Waits until everything was written, at most this long; returns whether it was.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        let is_busy = |state: &mut State| state.writing || !state.lines.is_empty();
        !self.emptied.wait_while_for(&mut state, is_busy, patience).timed_out()
    }

    fn push(&self, line: &[u8]) {
        let is_own = self.writes.get() == Some(&thread::current().id());
        let mut state = self.state.lock();
        if state.bytes + line.len() > WAITING_BYTES_MAX && !is_own {
            state.lost += 1;
            return;
        }
        let line = one_line(line);
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.filled.notify_one();
    }

    /// The next line, once there is one.
    fn next(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        state.writing = false;
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return line;
            }
            self.emptied.notify_all();
            self.filled.wait(&mut state);
        }
    }

    /// Called when a line was written: returns how many were lost since the last one.
    fn got_through(&self) -> u64 {
        let mut state = self.state.lock();
        let untold = state.lost - state.told;
        state.told = state.lost;
        untold
    }
}

/// Keeps an event on one line, whatever it contains: line breaks are written as `\n` and `\r`.
fn one_line(event: &[u8]) -> Vec<u8> {
    let (text, end) = event.strip_suffix(b"\n").map_or((event, &b""[..]), |text| (text, b"\n"));
    let mut line = Vec::with_capacity(event.len());
    for byte in text {
        match byte {
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.extend(end);
    line
}

/// Starts the thread. After the first line that can be written again, it calls `tell_lost` with the number
/// of lines that were lost; `tell_lost` may log.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(
    mut sink: impl Write + Send + 'static,
    tell_lost: impl Fn(u64) + Send + 'static,
) -> io::Result<(LineWriter, Arc<Buffer>)> {
    let buffer = Arc::new(Buffer::default());
    let from = Arc::clone(&buffer);
    let write_out = move || {
        let _first = from.writes.set(thread::current().id());
        // A partly written line is ended before the next one.
        let mut is_broken_off = false;
        loop {
            let line = from.next();
            let ended = if is_broken_off { sink.write_all(b"\n") } else { Ok(()) };
            match ended.and_then(|()| sink.write_all(&line)) {
                Ok(()) => {
                    is_broken_off = false;
                    match from.got_through() {
                        0 => {}
                        lost => tell_lost(lost),
                    }
                }
                Err(_) => {
                    is_broken_off = true;
                    from.state.lock().lost += 1;
                }
            }
        }
    };
    thread::Builder::new().name("log".to_owned()).spawn(write_out)?;
    Ok((LineWriter(Arc::clone(&buffer)), buffer))
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Accepts what it is allowed to, and fails when told to.
    struct Pipe {
        allowed: mpsc::Receiver<bool>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.allowed.recv() {
                Ok(true) => {
                    self.written.send(bytes.to_vec()).expect("the test reads");
                    Ok(bytes.len())
                }
                Ok(false) => Err(io::ErrorKind::BrokenPipe.into()),
                // The test is over; nothing more is let through.
                Err(_) => loop {
                    thread::park();
                },
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct World {
        lines: LineWriter,
        buffer: Arc<Buffer>,
        allow: mpsc::Sender<bool>,
        written: mpsc::Receiver<Vec<u8>>,
        told: mpsc::Receiver<u64>,
    }

    fn world() -> World {
        let (allow, allowed) = mpsc::channel();
        let (written_tx, written) = mpsc::channel();
        let (told_tx, told) = mpsc::channel();
        let tell = move |lost| told_tx.send(lost).expect("the test reads");
        let (lines, buffer) = start(Pipe { allowed, written: written_tx }, tell).unwrap();
        World { lines, buffer, allow, written, told }
    }

    #[test]
    fn lines_are_written_in_order() {
        let mut world = world();
        for line in ["one\n", "two\n"] {
            world.lines.write_all(line.as_bytes()).unwrap();
            world.allow.send(true).unwrap();
        }
        assert!(world.buffer.flush(PATIENCE));
        let written: Vec<Vec<u8>> = world.written.try_iter().collect();
        assert_eq!(written, [b"one\n", b"two\n"]);
        assert_eq!(world.buffer.lost(), 0);
        assert!(world.told.try_recv().is_err());
    }

    #[test]
    fn an_event_is_one_line() {
        for (event, line) in [
            ("", ""),
            ("\n", "\n"),
            ("said x\n", "said x\n"),
            ("said x\r\nERROR forged\n\n", "said x\\r\\nERROR forged\\n\n"),
            ("no end", "no end"),
        ] {
            assert_eq!(one_line(event.as_bytes()), line.as_bytes(), "{event:?}");
        }
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_is_told_how_many_once_it_is_back() {
        let mut world = world();
        for (line, taken) in [("one\n", false), ("two\n", false), ("three\n", true)] {
            world.lines.write_all(line.as_bytes()).unwrap();
            world.allow.send(taken).unwrap();
        }
        // Each failed write consumes one answer; before the third line, a broken one is ended.
        world.allow.send(true).unwrap();
        assert_eq!(world.told.recv_timeout(PATIENCE), Ok(2));
        assert_eq!(world.buffer.lost(), 2);
        let written: Vec<u8> = world.written.try_iter().flatten().collect();
        assert_eq!(written, b"\nthree\n");
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_up_nobody() {
        let mut world = world();
        let line = vec![b'x'; 1 << 10];
        for _ in 0..2 * (WAITING_BYTES_MAX >> 10) {
            world.lines.write_all(&line).unwrap();
        }
        let lost = world.buffer.lost();
        let fit = (WAITING_BYTES_MAX >> 10) as u64;
        // One more line fits if the thread has taken one.
        assert!((fit - 1..=fit).contains(&lost), "{lost}");
        assert!(!world.buffer.flush(Duration::ZERO), "it is not written, and says so");
        world.allow.send(true).unwrap();
        assert_eq!(world.told.recv_timeout(PATIENCE), Ok(lost));
    }
}
