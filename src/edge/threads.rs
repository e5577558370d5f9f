//! The threads that serve connections.
//!
//! Keeps true: a connection stays on its thread. The thread with the fewest connections gets the next one, so that even
//! a few HTTP/2 connections are spread evenly.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::runtime::RuntimeThread;

/// The edge's threads.
pub struct EdgeThreads {
    threads: Vec<EdgeThread>,
    /// Where the search for the least busy thread begins, so that equally busy threads take turns.
    next: AtomicUsize,
}

struct EdgeThread {
    runtime: RuntimeThread,
    connections: Arc<AtomicUsize>,
}

impl EdgeThreads {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// When the system cannot create a thread or an event queue.
    pub fn start(count: usize) -> io::Result<EdgeThreads> {
        let start = |number| {
            let runtime = RuntimeThread::start(&format!("edge-{number}"))?;
            Ok(EdgeThread { runtime, connections: Arc::default() })
        };
        let threads = (0..count.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(EdgeThreads { threads, next: AtomicUsize::new(0) })
    }

    /// Runs a connection on the thread with the fewest connections.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.threads.len()).map(|at| &self.threads[(first + at) % self.threads.len()]);
        let Some(thread) = in_turn.min_by_key(|thread| thread.connections.load(Ordering::Relaxed)) else {
            return;
        };
        let counted = Counted::new(&thread.connections);
        thread.runtime.handle().spawn(async move {
            let _counted = counted;
            connection.await;
        });
    }

    /// Drops the open connections and ends the threads.
    pub async fn stop(self) {
        for thread in self.threads {
            thread.runtime.stop().await;
        }
    }
}

/// Counts one connection of a thread until dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(connections: &Arc<AtomicUsize>) -> Counted {
        connections.fetch_add(1, Ordering::Relaxed);
        Counted(connections.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::ThreadId;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// Opens a connection that reports its thread, and ends on request.
    fn open(threads: &EdgeThreads, on: &mpsc::UnboundedSender<ThreadId>) -> oneshot::Sender<()> {
        let (end, ended) = oneshot::channel();
        let on = on.clone();
        threads.spawn(async move {
            on.send(std::thread::current().id()).unwrap();
            let _ = ended.await;
        });
        end
    }

    #[tokio::test]
    async fn connections_are_spread_evenly_and_a_thread_that_lost_its_own_gets_the_next() {
        let threads = EdgeThreads::start(3).unwrap();
        let (send, mut threads_used) = mpsc::unbounded_channel();
        let mut open_on = Vec::new();
        for _ in 0..6 {
            let end = open(&threads, &send);
            open_on.push((threads_used.recv().await.unwrap(), end));
        }
        let of = |thread| open_on.iter().filter(|(on, _)| *on == thread).count();
        assert!(open_on.iter().all(|(thread, _)| of(*thread) == 2));
        let freed = open_on[0].0;
        open_on.retain(|(thread, _)| *thread != freed);
        while threads.threads.iter().all(|thread| thread.connections.load(Ordering::Relaxed) > 0) {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            let end = open(&threads, &send);
            let thread = threads_used.recv().await.unwrap();
            assert_eq!(thread, freed);
            open_on.push((thread, end));
        }
        threads.stop().await;
    }
}
