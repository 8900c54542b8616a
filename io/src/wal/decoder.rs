//! Reads the records of a run of log files, one after the other, in bounded memory.
//!
//! The invariant: `offset` is the end of the last frame that checked out in the file being read, so that an error names the start of
//! the frame that is wrong, and repair cuts exactly there. Records are slices of the chunk that was read, not copies.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use crc32c::crc32c_append;

use super::error::{DecodeError, DecodeErrorKind, WalError};
use super::record::{FRAME_HEAD_BYTES, FrameHead, Kind, Record, is_torn};
use crate::disk::File;
use crate::fault::Fault;
use crate::mutants::mutated;

/// So much is read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// No record is longer, whatever `--max-request-bytes` says; a longer one in a file is damage.
pub(crate) const RECORD_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// One file to be read.
pub(crate) struct Source<F> {
    file: Arc<F>,
    path: PathBuf,
    size_bytes: u64,
    /// Place in the file of the first byte that is not in the buffer.
    next: u64,
    buffer: BytesMut,
}

impl<F: File> Source<F> {
    /// A file, from its beginning.
    pub(crate) async fn new(file: Arc<F>, path: PathBuf) -> Result<Self, Fault> {
        let size_bytes = file.size().await.map_err(Fault::disk("read the length of", &path))?;
        Ok(Self { file, path, size_bytes, next: 0, buffer: BytesMut::new() })
    }

    /// Reads until `count` bytes are in the buffer or the file ends, and says how many are there. Memory grows with what the file
    /// really holds, not with what a length field claims.
    async fn fill(&mut self, count: usize) -> Result<usize, Fault> {
        while self.buffer.len() < count {
            let held = self.buffer.len();
            let rest = self.size_bytes.saturating_sub(self.next).min(CHUNK_BYTES as u64) as usize;
            self.buffer.resize(held + rest.max(FRAME_HEAD_BYTES as usize), 0);
            let read = self.file.read_at(&mut self.buffer[held..], self.next).await;
            let read = read.map_err(Fault::disk("read", &self.path))?;
            self.buffer.truncate(held + read);
            if read == 0 {
                break;
            }
            self.next += read as u64;
        }
        Ok(self.buffer.len().min(count))
    }
}

/// Reads records.
pub(crate) struct Decoder<F> {
    sources: VecDeque<Source<F>>,
    crc: u32,
    /// End of the last good frame of the file being read.
    offset: u64,
    /// Start of the record that was returned last.
    record_offset: u64,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub(crate) mutant: Option<crate::mutants::Mutant>,
}

impl<F: File> Decoder<F> {
    /// Reads these files, of which there is at least one, in this order.
    pub(crate) fn new(sources: VecDeque<Source<F>>) -> Self {
        assert!(!sources.is_empty());
        Self {
            sources,
            crc: 0,
            offset: 0,
            record_offset: 0,
            #[cfg(mutants)]
            mutant: None,
        }
    }

    /// End of the last good frame of the file being read; at the end of everything, of the last file.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The running checksum.
    pub(crate) const fn crc(&self) -> u32 {
        self.crc
    }

    /// The file being read.
    pub(crate) fn path(&self) -> &Path {
        &self.source().path
    }

    /// The next record, or `None` at the end of the last file. Checksum records are checked here and not returned.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>, WalError> {
        loop {
            let Some(head) = self.frame_head().await? else {
                if self.sources.len() == 1 {
                    return Ok(None);
                }
                self.sources.pop_front();
                self.offset = 0;
                continue;
            };
            let record = self.record(head).await?;
            if record.kind == Kind::Crc {
                // A reader that has just begun takes the value on trust: it starts in the middle of the log.
                if self.crc != 0 && self.crc != record.crc {
                    return Err(self.damaged(DecodeErrorKind::Crc { expected: record.crc, computed: self.crc }).into());
                }
                self.crc = record.crc;
            }
            self.record_offset = self.offset;
            self.offset += FRAME_HEAD_BYTES + head.body_bytes();
            if record.kind != Kind::Crc {
                return Ok(Some(record));
            }
        }
    }

    /// An error at the record that was returned last.
    pub(crate) fn wrong(&self, kind: DecodeErrorKind) -> WalError {
        DecodeError { kind, file: self.path().to_owned(), offset: self.record_offset }.into()
    }

    /// `None` at the end of this file's records.
    async fn frame_head(&mut self) -> Result<Option<FrameHead>, WalError> {
        let source = self.source_mut();
        let held = source.fill(FRAME_HEAD_BYTES as usize).await?;
        let size_bytes = source.size_bytes;
        let Ok(bytes) = <[u8; FRAME_HEAD_BYTES as usize]>::try_from(&source.buffer[..held]) else {
            return if held == 0 { Ok(None) } else { Err(self.damaged(DecodeErrorKind::UnexpectedEof).into()) };
        };
        let Some(head) = FrameHead::parse(bytes) else {
            return Ok(None);
        };
        if !head.is_written_as(bytes) && !mutated!(self, HeadsUnchecked) {
            let cause = format!("a record of {} bytes has padding of {}", head.record_bytes, head.pad_bytes);
            return Err(self.damaged(DecodeErrorKind::Malformed(cause)).into());
        }
        // The head itself is not subtracted: etcd does not either, and the short read below finds the rest.
        let limit_bytes = size_bytes.saturating_sub(self.offset).saturating_sub(head.pad_bytes);
        let record_bytes = head.record_bytes;
        if record_bytes > limit_bytes {
            return Err(self.damaged(DecodeErrorKind::TooLong { record_bytes, limit_bytes }).into());
        }
        if record_bytes > RECORD_BYTES_MAX {
            return Err(self.damaged(DecodeErrorKind::Oversize { record_bytes }).into());
        }
        Ok(Some(head))
    }

    /// Reads and checks the record behind a frame head.
    async fn record(&mut self, head: FrameHead) -> Result<Record, WalError> {
        let frame_bytes = (FRAME_HEAD_BYTES + head.body_bytes()) as usize;
        let source = self.source_mut();
        if source.fill(frame_bytes).await? < frame_bytes {
            return Err(self.damaged(DecodeErrorKind::UnexpectedEof).into());
        }
        let body = source.buffer.split_to(frame_bytes).freeze().slice(FRAME_HEAD_BYTES as usize..);
        let record = match Record::parse(body.slice(..head.record_bytes as usize)) {
            Ok(record) => record,
            Err(error) => return Err(self.bad_record(&body, DecodeErrorKind::Malformed(error.to_string()))),
        };
        if record.kind != Kind::Crc {
            let computed = crc32c_append(self.crc, &record.data);
            if record.crc != computed && !mutated!(self, TornTailAccepted) {
                return Err(self.bad_record(&body, DecodeErrorKind::Crc { expected: record.crc, computed }));
            }
            self.crc = computed;
        }
        Ok(record)
    }

    /// A record that does not check out is a torn write in the last file, if it looks like one, and damage everywhere else.
    fn bad_record(&self, body: &Bytes, kind: DecodeErrorKind) -> WalError {
        let is_torn = self.sources.len() == 1 && is_torn(body, self.offset + FRAME_HEAD_BYTES);
        self.damaged(if is_torn { DecodeErrorKind::TornWrite } else { kind }).into()
    }

    /// An error at the frame that starts where the last good one ended.
    fn damaged(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { kind, file: self.path().to_owned(), offset: self.offset }
    }

    fn source(&self) -> &Source<F> {
        self.sources.front().expect("the last source is never dropped")
    }

    fn source_mut(&mut self) -> &mut Source<F> {
        self.sources.front_mut().expect("the last source is never dropped")
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::fuzz::ready;
    use super::*;
    use crate::disk::Lock;

    /// A file of a terabyte whose first frame claims most of it.
    struct Claim;

    const CLAIMED_BYTES: u64 = 1 << 39;

    impl File for Claim {
        async fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            assert_eq!(offset, 0, "nothing is read on such a claim but the head");
            buffer.fill(0);
            buffer[..8].copy_from_slice(&CLAIMED_BYTES.to_le_bytes());
            Ok(buffer.len())
        }

        async fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!("a reader writes nothing")
        }

        async fn sync_data(&self) -> io::Result<()> {
            unreachable!("a reader writes nothing")
        }

        async fn sync_all(&self) -> io::Result<()> {
            unreachable!("a reader writes nothing")
        }

        async fn size(&self) -> io::Result<u64> {
            Ok(1 << 40)
        }

        async fn set_size(&self, _: u64) -> io::Result<()> {
            unreachable!("a reader writes nothing")
        }

        async fn allocate(&self, _: u64) -> io::Result<()> {
            unreachable!("a reader writes nothing")
        }

        async fn lock(&self) -> io::Result<Lock> {
            unreachable!("a reader locks nothing")
        }
    }

    #[test]
    fn no_memory_is_taken_for_a_length_that_no_record_has() {
        let source = ready(Source::new(Arc::new(Claim), PathBuf::from("f"))).unwrap();
        let error = ready(Decoder::new(VecDeque::from([source])).next()).unwrap_err();
        assert!(!error.is_repairable());
        let WalError::Damaged(DecodeError { kind, offset: 0, .. }) = error else { panic!("{error}") };
        assert_eq!(kind, DecodeErrorKind::Oversize { record_bytes: CLAIMED_BYTES });
    }
}
