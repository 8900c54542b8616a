//! Files that have lost their place to a copy. To let go of a large file at once keeps the file system's journal, and with it every sync of the log, waiting for tens of
//! milliseconds; so its room is given back a bit at a time, once nobody reads it any more.

use std::fs;
use std::sync::Arc;

use super::super::backend::Release;
use super::generation::Generation;

/// How much of a file is given back at once.
const STEP_BYTES: u64 = 8 << 20;

/// One such file.
pub(super) enum Replaced {
    /// Somebody may still read it.
    Read(Arc<Generation>),
    /// Nobody does; what is left of it.
    Left(fs::File),
}

impl Replaced {
    /// Does the next bit of it.
    pub(super) fn release(self) -> std::io::Result<(Release, Option<Self>)> {
        match self {
            Self::Read(generation) => Ok(match Arc::try_unwrap(generation) {
                Ok(generation) => (Release::More, Some(Self::Left(generation.into_file()))),
                Err(read) => (Release::Read, Some(Self::Read(read))),
            }),
            Self::Left(file) => {
                let upto = file.metadata()?.len().saturating_sub(STEP_BYTES);
                file.set_len(upto)?;
                Ok(if upto == 0 { (Release::Done, None) } else { (Release::More, Some(Self::Left(file))) })
            }
        }
    }
}
