//! Work beside a run, on a thread with a runtime of its own, from its readiness until it is told to stop.

use std::future::Future;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};

use super::run::LoadError;

/// A thread at work. Dropping it tells the thread to stop and does not wait for it.
#[derive(Debug)]
pub struct Apart {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), LoadError>>>,
}

/// How the work tells that what it needs is there: a run may begin.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Notify>);

impl Ready {
    /// Tells it.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

impl Apart {
    /// Starts the work and waits until it is ready. Work that ends before that has failed.
    pub async fn start<W, F>(work: W) -> Result<Self, LoadError>
    where
        W: FnOnce(Ready) -> F + Send + 'static,
        F: Future<Output = Result<(), LoadError>>,
    {
        let ready = Ready::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ended, has_ended) = oneshot::channel::<()>();
        let telling = ready.clone();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(LoadError::Thread)?;
            let result = runtime.block_on(async {
                tokio::select! {
                    biased;
                    result = work(telling) => result,
                    _ = stopped => Ok(()),
                }
            });
            drop(ended);
            result
        });
        let mut apart = Self { stop: Some(stop), thread: Some(thread) };
        tokio::select! {
            biased;
            () = ready.0.notified() => Ok(apart),
            _ = has_ended => Err(apart.end().err().unwrap_or(LoadError::NothingDone)),
        }
    }

    /// Whether the work has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the work and tells how it went.
    pub fn stop(mut self) -> Result<(), LoadError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LoadError> {
        // A thread that has ended by itself hears nothing.
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_until_it_is_stopped() {
        let apart = Apart::start(|ready| async move {
            ready.tell();
            std::future::pending().await
        });
        assert!(apart.await.expect("it is ready").stop().is_ok());
    }

    #[tokio::test]
    async fn work_that_fails_before_it_is_ready_is_told() {
        let apart = Apart::start(|_| async { Err(LoadError::Stalled) }).await;
        assert!(matches!(apart, Err(LoadError::Stalled)), "{apart:?}");
    }

    #[tokio::test]
    async fn work_that_fails_later_is_told_when_it_is_stopped() {
        let apart = Apart::start(|ready| async move {
            ready.tell();
            Err(LoadError::Stalled)
        });
        let stopped = apart.await.expect("it was ready").stop();
        assert!(matches!(stopped, Err(LoadError::Stalled)), "{stopped:?}");
    }
}
