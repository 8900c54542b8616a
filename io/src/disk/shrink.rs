//! The room of a large file, given back piece by piece. A file system frees a file of some hundred megabytes in one go, and whoever syncs
//! another file waits for it meanwhile: 90 ms for 400 MB, seen from a log on the same disk.

use std::io;
use std::time::Duration;

use super::File;
use crate::clock::Instant;

/// What is given back at a time: some milliseconds of the disk's.
const PIECE_BYTES: u64 = 4 << 20;
/// The least rest between two pieces.
const REST_LEAST: Duration = Duration::from_millis(1);

/// A file that gets shorter until nothing is left of it.
#[derive(Debug)]
pub struct Shrinking<F> {
    file: F,
    size_bytes: u64,
}

impl<F: File> Shrinking<F> {
    /// Begins with a file that is open for writing, and that nobody needs any more.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn begin(file: F) -> io::Result<Self> {
        let size_bytes = file.size().await?;
        Ok(Self { file, size_bytes })
    }

    /// Gives a piece back. Answers how long to rest before the next one, if there is one.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn advance(&mut self) -> io::Result<Option<Duration>> {
        let began = Instant::now();
        self.size_bytes = self.size_bytes.saturating_sub(PIECE_BYTES);
        self.file.set_size(self.size_bytes).await?;
        Ok((0 < self.size_bytes).then(|| began.elapsed().max(REST_LEAST)))
    }
}

/// Empties a file that is open for writing, with rests.
///
/// # Errors
/// The disk failed.
pub async fn shrink<F: File>(file: F) -> io::Result<()> {
    let mut shrinking = Shrinking::begin(file).await?;
    while let Some(rest) = shrinking.advance().await? {
        tokio::time::sleep(rest).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Access, Disk, MemoryDisk};

    #[tokio::test(start_paused = true)]
    async fn a_file_leaves_in_pieces_with_rests() {
        for (size, sizes) in
            [(2 * PIECE_BYTES + 1, vec![PIECE_BYTES + 1, 1, 0]), (2 * PIECE_BYTES, vec![PIECE_BYTES, 0]), (0, vec![0])]
        {
            let disk = MemoryDisk::new();
            let file = disk.open(Path::new("f"), Access::CreateNew).await.unwrap();
            file.set_size(size).await.unwrap();
            let mut shrinking = Shrinking::begin(file).await.unwrap();
            let mut seen = Vec::new();
            loop {
                let rest = shrinking.advance().await.unwrap();
                seen.push(disk.stat(Path::new("f")).await.unwrap().size_bytes);
                let Some(rest) = rest else { break };
                assert!(REST_LEAST <= rest);
            }
            assert_eq!(seen, sizes);
        }
    }
}
