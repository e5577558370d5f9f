//! Moves the spooled events of one URL to its service: each lane's first one, up to the URL's limit at a time.
//!
//! Keeps true: a row is deleted only when the service has its event. A stop leaves the requests on their way to the
//! inbox, which waits for them a while. Their rows stay, and the next start finds out whether the service has them.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::drainer::{Dead, Settled};
use super::super::{Spool, table};
use super::{Job, Lanes, Next};
use crate::durable::broker::http::Destination;
use crate::durable::inbox::{EnqueueError, Inbox};

/// The drainer of one URL.
pub(in super::super) struct UrlDrainer {
    pub(in super::super) id: u64,
    pub(in super::super) destination: Arc<Destination>,
    pub(in super::super) lanes: Arc<Lanes>,
    pub(in super::super) spool: Arc<Spool>,
    pub(in super::super) inbox: Arc<Inbox>,
    pub(in super::super) tasks: TaskTracker,
    pub(in super::super) stop: CancellationToken,
}

impl UrlDrainer {
    /// Runs until no row waits for the URL, or until it is told to stop.
    pub(in super::super) async fn run(self) {
        self.stop.run_until_cancelled(self.drain()).await;
    }

    async fn drain(&self) {
        let Some(wake) = self.lanes.wake(self.id) else { return };
        loop {
            // First, so that the row is chosen by the state after the wait.
            let Some(permit) = self.destination.permit().await else { return };
            match self.lanes.next(self.id) {
                Next::Post(job) => {
                    let (spool, inbox, stop) = (self.spool.clone(), self.inbox.clone(), self.stop.clone());
                    self.tasks.spawn(async move {
                        stop.run_until_cancelled(post(&spool, &inbox, job, permit)).await;
                    });
                }
                Next::Wait(until) => {
                    drop(permit);
                    let time = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(until.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = wake.notified() => {}
                        () = time => {}
                    }
                }
                Next::End => return,
            }
        }
    }
}

impl Drop for UrlDrainer {
    fn drop(&mut self) {
        self.lanes.release(self.id);
    }
}

/// Posts a row's event, and deletes the row if the service has it or the event is dead.
async fn post(spool: &Spool, inbox: &Inbox, job: Job, _permit: OwnedSemaphorePermit) {
    let (_, seq) = job.row;
    let row = match spool.database.write(move |conn| table::waiting(conn, seq)).await {
        Ok(Some(row)) => row,
        Ok(None) => return job.done(),
        Err(why) => {
            job.record(Some(&EnqueueError::Refused(why.to_string())));
            return;
        }
    };
    let mut settled = Settled::default();
    let source = match row.request {
        Some(request) => {
            let request = Arc::new(request);
            let enqueued = inbox.enqueue(request.clone()).await;
            let given_up = job.record(enqueued.as_ref().err());
            match (enqueued, given_up) {
                // Before the row is deleted: after a crash in between, the event is a plain duplicate and is not
                // reported twice.
                (Ok(enqueued), _) => {
                    spool.notify(|observer| observer.on_enqueued(&request, &enqueued));
                    settled.enqueued.push(seq);
                }
                (Err(_), Some(why)) => settled.dead.push(Dead { seq, id: request.event.id.clone(), why }),
                (Err(_), None) => return,
            }
            request.source.clone()
        }
        None => {
            settled.dead.push(Dead { seq, id: String::new(), why: "its row is damaged".to_owned() });
            "".into()
        }
    };
    if spool.settle(&source, settled).await {
        job.done();
    } else {
        // The row stays. The next try finds that the service has the event, or gives it up again.
        job.record(Some(&EnqueueError::Overloaded));
    }
}
