//! The only clock: monotonic time for timers, wall time for ids and logs.
//!
//! Monotonic time is tokio's, so that simulated time needs no other code. Wall time is drawn where a request-id generator is seeded, and for those who watch the member.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;
use tokio::time::Sleep;

/// Milliseconds since 1970 by the wall clock; 0 if the clock stands before that.
#[must_use]
pub fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a loop sleeps by that waits again and again until nearly the same moment: one timer, set anew only when it would ring too late, and looked at only when it has rung.
#[derive(Debug)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the timer rings, if it has not been heard since it was set.
    at: Option<Instant>,
    ring: Arc<Ring>,
    waker: Waker,
}

/// How the timer is heard: it wakes whoever waits last.
#[derive(Debug, Default)]
struct Ring {
    has_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order, and the other way round where it is waited for: one of both sees the other.
        self.has_rung.store(true, Ordering::SeqCst);
        if let Some(task) = self.task().as_ref() {
            task.wake_by_ref();
        }
    }
}

impl Ring {
    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    /// Waits until `due`, forever without one. The task may be woken before, for a moment that an earlier wait had asked for.
    pub async fn until(&mut self, due: Option<Instant>) {
        match due {
            Some(due) => poll_fn(|context| self.poll(due, context)).await,
            None => std::future::pending().await,
        }
    }

    fn poll(&mut self, due: Instant, context: &Context<'_>) -> Poll<()> {
        let mut task = self.ring.task();
        if task.as_ref().is_none_or(|task| !task.will_wake(context.waker())) {
            *task = Some(context.waker().clone());
        }
        drop(task);
        // It rings, too, for a task whose turn is over, of which a timer takes no notice.
        let has_rung = self.ring.has_rung.swap(false, Ordering::SeqCst);
        if !has_rung && self.at.is_some_and(|at| at <= due) {
            return Poll::Pending;
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if self.at != Some(due) {
            sleep.as_mut().reset(due);
            self.at = Some(due);
        }
        let polled = sleep.as_mut().poll(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            self.at = None;
        }
        polled
    }
}

impl Default for Alarm {
    fn default() -> Self {
        let ring = Arc::<Ring>::default();
        let waker = Waker::from(Arc::clone(&ring));
        Self { sleep: None, at: None, ring, waker }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    /// Waits on the alarm until a moment, at most for an hour, and answers how long it took.
    async fn slept(alarm: &mut Alarm, due: Instant) -> Duration {
        let began = Instant::now();
        tokio::time::timeout(Duration::from_secs(3600), alarm.until(Some(due))).await.expect("it rings");
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_at_the_last_moment_that_it_was_asked_for() {
        let (mut alarm, begin) = (Alarm::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let cut = |seconds| tokio::time::sleep_until(at(seconds));
        for (cut_at, due) in [(1, 10), (2, 7), (3, 10)] {
            tokio::select! { biased; () = alarm.until(Some(at(due))) => panic!("too early"), () = cut(cut_at) => {} }
        }
        tokio::select! { biased; () = alarm.until(None) => panic!("nothing is due"), () = cut(4) => {} }
        assert_eq!(slept(&mut alarm, at(9)).await, Duration::from_secs(5), "set for 7 before, and that is too early");
        assert_eq!(slept(&mut alarm, at(12)).await, Duration::from_secs(3));
        assert_eq!(slept(&mut alarm, at(11)).await, Duration::ZERO, "a moment that is gone");
        tokio::select! { biased; () = alarm.until(Some(at(20))) => panic!("too early"), () = cut(13) => {} }
        assert_eq!(slept(&mut alarm, at(14)).await, Duration::from_secs(1), "set for 20 before, and that is too late");
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_is_set_at_the_end_of_a_turn_rings() {
        let (mut alarm, due) = (Alarm::default(), Instant::now() + Duration::from_secs(5));
        let tired = tokio::spawn(async move {
            let mut is_tired = true;
            poll_fn(|context| {
                while std::mem::take(&mut is_tired) && tokio::task::coop::has_budget_remaining() {
                    is_tired = pin!(tokio::task::coop::consume_budget()).poll(context).is_ready();
                }
                alarm.poll(due, context)
            })
            .await;
        });
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, tired).await.expect("it rings").expect("the task ends");
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_wakes_the_task_that_waits_now() {
        let (mut alarm, due) = (Alarm::default(), Instant::now() + Duration::from_secs(5));
        let mut alarm = tokio::spawn(async move {
            let _ = tokio::time::timeout(Duration::from_secs(1), alarm.until(Some(due))).await;
            alarm
        })
        .await
        .expect("the task ends");
        let other = tokio::spawn(async move { slept(&mut alarm, due).await });
        assert_eq!(other.await.expect("the task ends"), Duration::from_secs(4));
    }
}
