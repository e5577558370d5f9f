//! Single-threaded runtimes, and batched answers between their threads.
//!
//! Keeps true: a task stays on the thread of its runtime. The answers of one batch reach a thread in one message.
//! Waking another thread costs a system call, so a message for each answer would cost a system call for each request.

use std::cell::RefCell;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

/// A current-thread runtime on a thread of its own.
pub struct RuntimeThread {
    handle: Handle,
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl RuntimeThread {
    /// Starts the thread. `top` and debuggers show its name.
    ///
    /// # Errors
    /// When the system cannot create a thread or an event queue.
    pub fn start(name: &str) -> io::Result<RuntimeThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopping) = oneshot::channel();
        let (ended, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(run(stopping));
            // Ends the remaining tasks.
            drop(runtime);
            let _ = ended.send(());
        })?;
        Ok(RuntimeThread { handle, stop, stopped, thread })
    }

    /// A handle to spawn tasks onto it from any thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends its tasks and its thread.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        // If the thread panicked, the sender was dropped, so this returns at once too.
        let _ = self.stopped.await;
        if self.thread.join().is_err() {
            tracing::error!("a runtime's thread panicked");
        }
    }
}

/// Polls `work` in the calling task, but its new tasks, sockets and timers belong to `runtime`.
pub async fn within<F: Future>(runtime: &Handle, work: F) -> F::Output {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        let _entered = runtime.enter();
        work.as_mut().poll(cx)
    })
    .await
}

/// Delivers answers until `stopping`, while the runtime's other tasks run too.
async fn run(mut stopping: oneshot::Receiver<()>) {
    let (send, mut batches) = mpsc::unbounded_channel::<Batch>();
    MAILBOX.set(Some(send));
    loop {
        tokio::select! {
            biased;
            _ = &mut stopping => break,
            batch = batches.recv() => match batch {
                Some(deliver) => deliver(),
                None => break,
            },
        }
    }
    MAILBOX.set(None);
}

/// Delivers one batch's answers. It runs on the thread of the askers.
type Batch = Box<dyn FnOnce() + Send>;

thread_local! {
    static MAILBOX: RefCell<Option<mpsc::UnboundedSender<Batch>>> = const { RefCell::new(None) };
}

/// A thread whose tasks wait for answers.
#[derive(Clone)]
pub struct Home(Option<mpsc::UnboundedSender<Batch>>);

impl Home {
    /// The calling thread.
    pub fn here() -> Home {
        Home(MAILBOX.with_borrow(Clone::clone))
    }

    fn is_same(&self, other: &Home) -> bool {
        match (&self.0, &other.0) {
            (Some(home), Some(other)) => home.same_channel(other),
            (home, other) => home.is_none() && other.is_none(),
        }
    }
}

/// The sending side of one awaited answer.
pub struct Reply<T> {
    home: Home,
    answer: oneshot::Sender<T>,
}

impl<T> Reply<T> {
    /// The thread that waits.
    pub fn home(&self) -> Home {
        self.home.clone()
    }

    /// Sends the answer. If the asker is gone, the answer is dropped.
    pub fn deliver(self, answer: T) {
        let _ = self.answer.send(answer);
    }
}

/// Creates a reply to the calling thread, and its receiver.
pub fn reply<T>() -> (Reply<T>, oneshot::Receiver<T>) {
    let (answer, answered) = oneshot::channel();
    (Reply { home: Home::here(), answer }, answered)
}

/// An answer to deliver.
pub trait Answer: Send + 'static {
    /// Wakes the asker. It is called on the asker's thread.
    fn deliver(self);
}

/// The answer to a [`Reply`].
pub struct Answered<T>(oneshot::Sender<T>, T);

impl<T: Send + 'static> Answer for Answered<T> {
    fn deliver(self) {
        let _ = self.0.send(self.1);
    }
}

/// The answers of one batch, grouped by the thread of their askers. Dropping sends them.
pub struct Answers<A: Answer> {
    by_home: Vec<(Home, Vec<A>)>,
}

impl<A: Answer> Default for Answers<A> {
    fn default() -> Answers<A> {
        Answers { by_home: Vec::new() }
    }
}

impl<T: Send + 'static> Answers<Answered<T>> {
    /// Adds the answer to a reply.
    pub fn reply(&mut self, reply: Reply<T>, answer: T) {
        self.add(reply.home, Answered(reply.answer, answer));
    }
}

impl<A: Answer> Answers<A> {
    /// Adds an answer.
    pub fn add(&mut self, home: Home, answer: A) {
        match self.by_home.iter_mut().find(|(known, _)| known.is_same(&home)) {
            Some((_, answers)) => answers.push(answer),
            None => self.by_home.push((home, vec![answer])),
        }
    }

    /// Sends each thread its answers.
    pub fn send(&mut self) {
        for (home, answers) in self.by_home.drain(..) {
            let deliver = move || answers.into_iter().for_each(Answer::deliver);
            match home.0 {
                // The send fails only if the runtime has stopped, and then no asker is left.
                Some(mailbox) => _ = mailbox.send(Box::new(deliver)),
                None => deliver(),
            }
        }
    }
}

impl<A: Answer> Drop for Answers<A> {
    fn drop(&mut self) {
        self.send();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn answers_reach_askers_on_every_thread_even_if_some_are_gone() {
        let threads = [RuntimeThread::start("one").unwrap(), RuntimeThread::start("two").unwrap()];
        let (send, mut asked) = mpsc::unbounded_channel();
        let right = Arc::new(AtomicUsize::new(0));
        let mut asking = Vec::new();
        for number in 0..10_usize {
            let (send, right) = (send.clone(), right.clone());
            let ask = async move {
                let (reply, answered) = reply::<usize>();
                send.send((number, reply)).unwrap();
                if number % 5 == 4 {
                    return;
                }
                let thread = std::thread::current().id();
                let answer = answered.await.unwrap();
                right.fetch_add(usize::from(answer == number), Ordering::Relaxed);
                assert_eq!(std::thread::current().id(), thread);
            };
            asking.push(match threads.get(number % 3) {
                Some(thread) => thread.handle().spawn(ask),
                None => Handle::current().spawn(ask),
            });
        }
        let mut answers = Answers::default();
        for _ in 0..10 {
            let (number, reply) = asked.recv().await.unwrap();
            answers.reply(reply, number);
        }
        assert_eq!(answers.by_home.len(), 3, "one message a thread");
        drop(answers);
        for asked in asking {
            asked.await.unwrap();
        }
        assert_eq!(right.load(Ordering::Relaxed), 8);
        for thread in threads {
            thread.stop().await;
        }
    }

    #[tokio::test]
    async fn stopping_ends_the_remaining_tasks() {
        struct NotifyOnDrop(Option<oneshot::Sender<()>>);
        impl Drop for NotifyOnDrop {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let thread = RuntimeThread::start("one").unwrap();
        let (send, ended) = oneshot::channel();
        let notify = NotifyOnDrop(Some(send));
        thread.handle().spawn(async move {
            let _notify = notify;
            std::future::pending::<()>().await;
        });
        thread.stop().await;
        ended.await.unwrap();
    }
}
