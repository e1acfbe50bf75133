//! Stops reading a record that never ends.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest record, in bytes. Without this bound, a stray quote in a CSV file would swallow the rest.
pub(super) const RECORD_BYTES_MAX: u64 = 1 << 20;

/// A reader that counts the bytes of the current record.
#[derive(Debug)]
pub(super) struct Metered<R> {
    inner: R,
    of_record: Arc<AtomicU64>,
}

/// The count of a [`Metered`].
#[derive(Debug)]
pub(super) struct ReadMeter(Arc<AtomicU64>);

impl<R: Read> Metered<R> {
    pub(super) fn new(inner: R) -> (Self, ReadMeter) {
        let of_record = Arc::new(AtomicU64::new(0));
        (Self { inner, of_record: Arc::clone(&of_record) }, ReadMeter(of_record))
    }
}

impl ReadMeter {
    /// Starts counting a record. Readers read ahead, so the bound is not exact.
    pub(super) fn begin_record(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.of_record.load(Ordering::Relaxed) > RECORD_BYTES_MAX {
            let problem = format!("a record is longer than {RECORD_BYTES_MAX} bytes: is a quote not closed?");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
        }
        let length = self.inner.read(buffer)?;
        self.of_record.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
