//! The stream of a snapshot: etcd's database file in pieces, and its SHA-256 behind it.
//!
//! The file was made before the first piece leaves, so a slow client holds a file on the disk and one piece in memory, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use detcd_io::copier::{Copied, NoCopy};
use detcd_io::store::backend::Backend;
use detcd_proto::etcdserverpb as pb;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tonic::Status;

use crate::member::Member;
use crate::status::{self, Refused};

/// Bytes of a piece, as in etcd.
const PIECE_BYTES: usize = 32 * 1024;
/// Bytes that are read at once.
const READ_BYTES: usize = 8 * PIECE_BYTES;

/// The rest after as many, so that a fast client leaves the processor to the others: at most some 100 MB a second.
const REST: Duration = Duration::from_millis(2);

/// How long a client may take nothing: then its copy goes, for the room of the disk and for others who wait.
const PATIENCE: Duration = Duration::from_mins(5);

/// A stream of pieces.
pub(super) type Pieces = mpsc::Sender<Result<pb::SnapshotResponse, Status>>;

/// Makes a copy of everything that is applied now.
pub(super) async fn copy<B: Backend>(member: &Member<B>) -> Result<Copied, Status> {
    let flushed = tokio::time::timeout(member.limits().timeout, member.asker().flush()).await;
    match flushed {
        Ok(flushed) => flushed.map_err(|why| status::status(status::unanswered(why)))?,
        // The store does not take what is applied: there is no room for it.
        Err(_) => return Err(Refused::Timeout.into()),
    }
    member.upkeep().copies.make().await.map_err(refused)
}

fn refused(why: NoCopy) -> Status {
    match why {
        NoCopy::Stopping => Refused::Stopped.into(),
        NoCopy::TooMany => status::status(status::unanswered(detcd_io::driver::ask::Unanswered::TooManyRequests)),
        NoCopy::Failed(fault) => {
            tracing::error!(%fault, "failed to copy the store");
            Status::unknown(fault.to_string())
        }
    }
}

/// Sends the copy, until all of it is sent or nobody takes it.
pub(super) async fn send(copied: Copied, version: String, pieces: Pieces) {
    let mut hash = Sha256::new();
    let (size, mut sent) = (copied.size_bytes(), 0);
    while sent < size {
        let bytes = match copied.read(sent, READ_BYTES).await {
            Ok(bytes) if bytes.is_empty() => {
                let cut = format!("the copy ends at byte {sent} of {size}");
                return drop(pieces.send(Err(Status::internal(cut))).await);
            }
            Ok(bytes) => bytes,
            Err(why) => return drop(pieces.send(Err(refused(why))).await),
        };
        hash.update(&bytes);
        for blob in cut(bytes) {
            sent += blob.len() as u64;
            let piece =
                pb::SnapshotResponse { header: None, remaining_bytes: size - sent, blob, version: version.clone() };
            match tokio::time::timeout(PATIENCE, pieces.send(Ok(piece))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::warn!(sent, size, "a client takes nothing of its snapshot; it is given up");
                    drop(copied);
                    let late =
                        Status::deadline_exceeded("the snapshot was given up: nothing of it was taken for too long");
                    return drop(pieces.send(Err(late)).await);
                }
            }
        }
        tokio::time::sleep(REST).await;
    }
    // Its room on the disk does not wait for a client who takes everything but the end.
    drop(copied);
    let blob = Bytes::copy_from_slice(&hash.finalize());
    let _ = pieces.send(Ok(pb::SnapshotResponse { header: None, remaining_bytes: 0, blob, version })).await;
}

fn cut(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let next = bytes.split_to(bytes.len().min(PIECE_BYTES));
        (!next.is_empty()).then_some(next)
    })
}
