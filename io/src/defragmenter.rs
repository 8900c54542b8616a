//! Defragmentation: the store is copied into a fresh file that takes its place, while reads and writes go on.
//!
//! It belongs to the committer, because only between two commits can a copy take the store's place. Chunks are copied when no job waits, each made durable, so that little
//! of the copy is ever in the system's memory for a sync of the log to wait for; after each chunk the disk rests, the longer if anything was committed a moment ago. A copy that fails
//! is removed, and the store is as it was.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Instant;
use crate::fault::Fault;
use crate::mutants::mutated;
use crate::stats::CommitStats;
use crate::store::backend::{Backend, Release, Size};
use crate::store::batch::Batch;
use crate::store::copying::{Chunk, Copying, Failed, Rest, Stands};

/// How long until it is looked again whether a replaced store is still read.
const UNREAD_PAUSE: Duration = Duration::from_millis(100);

/// What came of a defragmentation: nothing to say, or why it failed.
pub type Answer = Result<(), String>;

/// A request to defragment. It is answered when the store's file is the new one.
pub type Ask = oneshot::Sender<Answer>;

/// Defragments when it is asked to. Requests that come meanwhile are carried out together, afterwards.
pub struct Defragmenter<B> {
    asks: mpsc::Receiver<Ask>,
    /// What is copied between two looks at the committer's jobs.
    chunk: Chunk,
    under_way: Option<UnderWay<B>>,
    /// Somebody asked, and the copy has not begun.
    waiting: Vec<Ask>,
    /// When the next bit of the store that was replaced is to be given back.
    release_due: Option<Instant>,
    /// The known bug that it carries, in builds that prove the checkers can fail.
    #[cfg(mutants)]
    pub mutant: Option<crate::mutants::Mutant>,
}

struct UnderWay<B> {
    copying: Copying<B>,
    asks: Vec<Ask>,
    /// When the next chunk is due.
    due: Instant,
    /// The last commit since it began.
    committed: Option<Instant>,
    /// When the first chunk was due.
    began: Instant,
}

impl<B: Backend> Defragmenter<B> {
    /// One that is asked through `asks`, and copies a `chunk` at a time.
    #[must_use]
    pub const fn new(asks: mpsc::Receiver<Ask>, chunk: Chunk) -> Self {
        Self {
            asks,
            chunk,
            under_way: None,
            waiting: Vec::new(),
            release_due: None,
            #[cfg(mutants)]
            mutant: None,
        }
    }

    /// Waits until there is something to do. May be given up at any time.
    pub async fn due(&mut self) {
        if let Some(due) = self.release_due.or_else(|| self.under_way.as_ref().map(|under_way| under_way.due)) {
            return tokio::time::sleep_until(due).await;
        }
        if self.waiting.is_empty() {
            match self.asks.recv().await {
                Some(ask) => self.waiting.push(ask),
                // Nobody can ask any more.
                None => std::future::pending().await,
            }
        }
    }

    /// Does the next bit. Answers the store's size if its file is another one now.
    ///
    /// # Errors
    /// The store failed, and not only the copy.
    pub async fn advance(&mut self, store: &B, stats: &CommitStats) -> Result<Option<Size>, Fault> {
        if self.release_due.is_some() {
            self.release(store).await;
            return Ok(None);
        }
        let advanced = self.work(store, stats).await;
        stats.defragmenting.store(u64::from(self.under_way.is_some()), Ordering::Relaxed);
        advanced
    }

    async fn work(&mut self, store: &B, stats: &CommitStats) -> Result<Option<Size>, Fault> {
        let began = Instant::now();
        let Some(mut under_way) = self.under_way.take() else {
            return self.begin(store).await.map(|()| None);
        };
        match under_way.copying.advance(store, self.chunk).await {
            Ok(Stands::More) => {
                let now = Instant::now();
                let rest = under_way.committed.map_or(Rest::Short, |at| Rest::since(now - at));
                under_way.due = now + rest.after(now - began);
                self.under_way = Some(under_way);
                Ok(None)
            }
            Ok(Stands::Equal) => {
                store.replace(under_way.copying.into_copy()).await?;
                self.release_due = Some(Instant::now());
                let size = store.size().await?;
                stats.defragment.observe(under_way.began.elapsed());
                tracing::info!(size = size.allocated, in_use = size.in_use, "finished defragmenting");
                for ask in under_way.asks {
                    let _ = ask.send(Ok(()));
                }
                Ok(Some(size))
            }
            Err(failed) => give_up(store, under_way, failed).await.map(|()| None),
        }
    }

    /// Gives back a bit of the store that was replaced.
    async fn release(&mut self, store: &B) {
        let began = Instant::now();
        let rest = match store.release().await {
            Release::Done => None,
            Release::More => Some(Rest::Long.after(began.elapsed())),
            Release::Read => Some(UNREAD_PAUSE),
        };
        self.release_due = rest.map(|rest| Instant::now() + rest);
    }

    async fn begin(&mut self, store: &B) -> Result<(), Fault> {
        let mut asks = std::mem::take(&mut self.waiting);
        while let Ok(ask) = self.asks.try_recv() {
            asks.push(ask);
        }
        tracing::info!("defragmenting");
        match Copying::begin(store).await {
            Ok(copying) => {
                let now = Instant::now();
                self.under_way = Some(UnderWay { copying, asks, due: now, committed: None, began: now });
            }
            Err(failed) => answer_failed(asks, failed)?,
        }
        Ok(())
    }

    /// Keeps a copy equal to what the store has just committed.
    ///
    /// # Errors
    /// The store failed, and not only the copy.
    pub async fn on_committed(&mut self, store: &B, batch: &Batch) -> Result<(), Fault> {
        if mutated!(self, CopyMissesBatches) {
            return Ok(());
        }
        let Some(mut under_way) = self.under_way.take() else { return Ok(()) };
        let alive = mutated!(self, CopyKeepsTheDead).then(|| Batch { dead: Vec::new(), ..batch.clone() });
        match under_way.copying.on_committed(alive.as_ref().unwrap_or(batch)).await {
            Ok(()) => {
                under_way.committed = Some(Instant::now());
                self.under_way = Some(under_way);
                Ok(())
            }
            Err(failed) => give_up(store, under_way, failed).await,
        }
    }
}

async fn give_up<B: Backend>(store: &B, under_way: UnderWay<B>, failed: Failed) -> Result<(), Fault> {
    store.discard(under_way.copying.into_copy()).await;
    answer_failed(under_way.asks, failed)
}

fn answer_failed(asks: Vec<Ask>, failed: Failed) -> Result<(), Fault> {
    let cause = match failed {
        Failed::Copy(cause) => cause,
        Failed::Store(fault) => return Err(fault),
    };
    tracing::error!(cause, "failed to defragment; the store is as it was");
    for ask in asks {
        let _ = ask.send(Err(cause.clone()));
    }
    Ok(())
}
