//! A connection of HTTP/2 and its streams, run as one future.
//!
//! hyper would have each stream be a task. Here they are futures beside their connection: what several of them have to say leaves in one write, and between a request, its
//! handler and its answer no task wakes another. Each part has a bell of its own, so that only a part that has something to do is looked at.

use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream as _;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use tokio::task::coop;

use crate::gather::Gathered;

/// How often a turn looks at the same part before others of the runtime get theirs.
const ROUNDS_MAX: usize = 8;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a connection leaves the streams that it begins.
#[derive(Clone, Default)]
pub(crate) struct Begun(Arc<Mutex<Vec<Running>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

/// The task of the connection, and whether it is looking at its bells.
#[derive(Default)]
struct Task {
    waker: AtomicWaker,
    is_looking: AtomicBool,
}

/// Says that a part has something to do.
struct Bell {
    is_rung: AtomicBool,
    task: Arc<Task>,
}

impl Bell {
    /// A bell that is rung, and the waker that rings it.
    fn rung(task: &Arc<Task>) -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self { is_rung: AtomicBool::new(true), task: Arc::clone(task) });
        (Arc::clone(&bell), Waker::from(bell))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Who looks at the bells does so once more after it said that it does not look any longer.
        if !self.is_rung.swap(true, SeqCst) && !self.task.is_looking.load(SeqCst) {
            self.task.waker.wake();
        }
    }
}

/// A part and its bell.
struct Part<T> {
    of: T,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<T> Part<T> {
    fn new(of: T, task: &Arc<Task>) -> Self {
        let (bell, waker) = Bell::rung(task);
        Self { of, bell, waker }
    }

    fn is_rung(&self) -> bool {
        self.bell.is_rung.load(SeqCst)
    }

    /// The part, if its bell was rung, and with what it is polled.
    fn answer(&mut self) -> Option<(&mut T, Context<'_>)> {
        self.bell.is_rung.swap(false, SeqCst).then(|| (&mut self.of, Context::from_waker(&self.waker)))
    }
}

/// What can be told to come to its end.
pub(crate) trait Graceful: Future {
    /// No further streams; those that run come to their end.
    fn close(self: Pin<&mut Self>);
}

/// A connection with its streams, and what tells it to close.
pub(crate) struct Together<'a, C, U> {
    connection: Part<Pin<&'a mut C>>,
    closing: Part<Option<Pin<&'a mut U>>>,
    streams: Part<FuturesUnordered<Running>>,
    begun: Begun,
    output: Gathered,
    task: Arc<Task>,
}

impl<'a, C: Graceful, U: Future<Output = ()>> Together<'a, C, U> {
    /// Runs `connection`, which leaves its streams at `begun` and what it writes in `output`, and closes it when `closing` ends.
    pub(crate) fn new(connection: Pin<&'a mut C>, (begun, output): (Begun, Gathered), closing: Pin<&'a mut U>) -> Self {
        let task = Arc::new(Task::default());
        Self {
            connection: Part::new(connection, &task),
            closing: Part::new(Some(closing), &task),
            streams: Part::new(FuturesUnordered::new(), &task),
            begun,
            output,
            task,
        }
    }

    /// Looks at every part whose bell was rung.
    fn round(&mut self) -> Poll<C::Output> {
        if let Some((streams, mut context)) = self.streams.answer() {
            while let Poll::Ready(Some(())) = Pin::new(&mut *streams).poll_next(&mut context) {}
        }
        if let Some((closing, mut context)) = self.closing.answer()
            && closing.as_mut().is_some_and(|closing| closing.as_mut().poll(&mut context).is_ready())
        {
            *closing = None;
            self.connection.of.as_mut().close();
            self.connection.waker.wake_by_ref();
        }
        if let Some((connection, mut context)) = self.connection.answer()
            && let Poll::Ready(ended) = connection.as_mut().poll(&mut context)
        {
            return Poll::Ready(ended);
        }
        let mut begun = self.begun.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !begun.is_empty() {
            self.streams.of.extend(begun.drain(..));
            self.streams.waker.wake_by_ref();
        }
        Poll::Pending
    }

    /// Sends what the turn has written. If that must wait, the connection's bell rings when it can go on; an error shows itself to the connection, too.
    fn send(&self) {
        let _ = self.output.poll_send(&mut Context::from_waker(&self.connection.waker));
    }

    fn is_rung(&self) -> bool {
        self.connection.is_rung() || self.streams.is_rung() || self.closing.is_rung()
    }
}

impl<C: Graceful, U: Future<Output = ()>> Future for Together<'_, C, U> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        self.task.waker.register(context.waker());
        for _ in 0..ROUNDS_MAX {
            self.task.is_looking.store(true, SeqCst);
            if let Poll::Ready(ended) = self.round() {
                return Poll::Ready(ended);
            }
            if !self.is_rung() {
                self.send();
                self.task.is_looking.store(false, SeqCst);
                if !self.is_rung() {
                    return Poll::Pending;
                }
            }
            if !coop::has_budget_remaining() {
                break;
            }
        }
        self.send();
        self.task.is_looking.store(false, SeqCst);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;

    /// Begins its streams when it is first polled, and ends once it is closed.
    struct Connection {
        begun: Begun,
        streams: Vec<Running>,
        polled: Arc<AtomicUsize>,
        is_closed: bool,
    }

    impl Future for Connection {
        type Output = &'static str;

        fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<&'static str> {
            self.polled.fetch_add(1, SeqCst);
            for stream in std::mem::take(&mut self.streams) {
                self.begun.execute(stream);
            }
            if self.is_closed { Poll::Ready("closed") } else { Poll::Pending }
        }
    }

    impl Graceful for Connection {
        fn close(mut self: Pin<&mut Self>) {
            self.is_closed = true;
        }
    }

    /// Runs these streams until `until` is told; how often the connection was looked at.
    async fn run(streams: Vec<Running>, until: oneshot::Receiver<()>) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (begun, polled) = (Begun::default(), Arc::new(AtomicUsize::new(0)));
        let (of, counted) = (begun.clone(), Arc::clone(&polled));
        let connection = pin!(Connection { begun: of, streams, polled: counted, is_closed: false });
        let closing = pin!(async move { until.await.unwrap() });
        let together = Together::new(connection, (begun, Gathered::new(socket)), closing);
        assert_eq!(together.await, "closed");
        polled.load(SeqCst)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn streams_hear_of_each_other_and_of_other_tasks() {
        let (done, until) = oneshot::channel();
        let (to_second, from_first) = oneshot::channel();
        let (to_task, from_second) = oneshot::channel();
        let (to_first, from_task) = oneshot::channel();
        tokio::spawn(async move { to_first.send(from_second.await.unwrap()).unwrap() });
        let first = Box::pin(async move {
            to_second.send("news").unwrap();
            assert_eq!(from_task.await, Ok("news"));
            done.send(()).unwrap();
        });
        let second = Box::pin(async move { to_task.send(from_first.await.unwrap()).unwrap() });
        assert!(run(vec![first, second], until).await <= 3, "the connection itself has nothing to do");
    }

    #[tokio::test]
    async fn a_stream_that_always_has_something_to_do_lets_others_have_their_turn() {
        let (done, until) = oneshot::channel();
        let restless = Box::pin(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        let other = tokio::spawn(async move {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
        });
        run(vec![restless], until).await;
        other.await.unwrap();
    }
}
