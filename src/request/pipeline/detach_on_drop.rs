//! Finishes a request's work after its client disconnects.
//!
//! Keeps true: hyper drops a request's future when the client disconnects. Work wrapped in [`detach_on_drop`] then
//! continues as a task of its own. Otherwise it costs one allocation and no task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

/// Runs `work` in the awaiting future. If that future is dropped, the work continues on `tasks`.
pub(super) fn detach_on_drop<F>(tasks: TaskTracker, work: F) -> DetachOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    DetachOnDrop { work: Some(Box::pin(work)), tasks }
}

pub(super) struct DetachOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// None once finished.
    work: Option<Pin<Box<F>>>,
    tasks: TaskTracker,
}

impl<F> Future for DetachOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = work.as_mut().poll(cx);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl<F> Drop for DetachOnDrop<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.tasks.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn dropped_work_is_finished() {
        let (tasks, done) = (TaskTracker::new(), Arc::new(AtomicBool::new(false)));
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let seen = done.clone();
        let mut work = detach_on_drop(tasks.clone(), async move {
            wait.await.ok();
            seen.store(true, Ordering::SeqCst);
        });
        assert!(futures_poll(&mut work).is_pending());
        drop(work);
        assert!(!done.load(Ordering::SeqCst));
        go.send(()).unwrap();
        tasks.close();
        tasks.wait().await;
        assert!(done.load(Ordering::SeqCst));
    }

    fn futures_poll<F: Future + Unpin>(work: &mut F) -> Poll<F::Output> {
        Pin::new(work).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
