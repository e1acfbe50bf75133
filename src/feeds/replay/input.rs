//! Counts the bytes read, and stops a record that never ends.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest record, in bytes. Without it, a stray quote in a CSV file would swallow the rest.
pub(super) const RECORD_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Counts {
    total: AtomicU64,
    at_record: AtomicU64,
}

/// A reader that counts.
#[derive(Debug)]
pub(super) struct Metered<R> {
    inner: R,
    counts: Arc<Counts>,
}

/// The counts of a [`Metered`].
#[derive(Debug)]
pub(super) struct ReadMeter(Arc<Counts>);

impl<R: Read> Metered<R> {
    pub(super) fn new(inner: R) -> (Self, ReadMeter) {
        let counts = Arc::new(Counts::default());
        (Self { inner, counts: Arc::clone(&counts) }, ReadMeter(counts))
    }
}

impl ReadMeter {
    fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Starts counting a record. Readers read ahead, so the bound is not exact.
    pub(super) fn begin_record(&self) {
        self.0.at_record.store(self.total(), Ordering::Relaxed);
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let counts = &self.counts;
        let total = counts.total.load(Ordering::Relaxed);
        if total - counts.at_record.load(Ordering::Relaxed) > RECORD_BYTES_MAX {
            let problem = format!("a record is longer than {RECORD_BYTES_MAX} bytes: is a quote not closed?");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
        }
        let length = self.inner.read(buffer)?;
        counts.total.store(total + length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
