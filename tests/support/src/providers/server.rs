//! The HTTP server of a simulator.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::delivery::{self, validate};
use super::{Call, Fault, Refusal, Reply, Simulated, World};
use crate::leaks;

type Thread = (oneshot::Sender<()>, JoinHandle<()>);

/// Serves until it is told to end.
pub(super) fn start<P: Simulated>(
    listener: std::net::TcpListener,
    world: Arc<Mutex<World<P>>>,
) -> (Handle, Thread) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                never = serve(listener, world) => match never {},
                _ = ended => {}
            }
        });
    });
    (handle, (end, thread))
}

async fn serve<P: Simulated>(listener: std::net::TcpListener, world: Arc<Mutex<World<P>>>) -> Infallible {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let world = world.clone();
        let service = service_fn(move |request| handle(request, world.clone()));
        connections.spawn(async move {
            // A cut is an error of the service.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("the connection is cut")
    }
}

impl std::error::Error for Cut {}

async fn handle<P: Simulated>(
    request: Request<Incoming>,
    world: Arc<Mutex<World<P>>>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let mut call = read(request).await.ok_or(Cut)?;
    let (number, fault) = {
        let mut world = world.lock().unwrap();
        world.calls.push(call.clone());
        (world.calls.len() - 1, world.faults.take(&call))
    };
    let reply = match &fault {
        Some(Fault::CutBefore) => return Err(Cut),
        Some(Fault::Status(status)) => P::error(*status, "ordered by the test"),
        Some(Fault::TooMany(after)) => {
            let mut reply = P::error(429, "ordered by the test");
            reply.headers.extend(after.clone().map(|after| ("retry-after", after)));
            reply
        }
        Some(Fault::Redirect(to)) => Reply { headers: vec![("location", to.clone())], ..Reply::empty(307) },
        Some(Fault::Answer(reply)) => reply.clone(),
        Some(Fault::TokensEnd) => {
            world.lock().unwrap().provider.end_tokens();
            answer(&mut call, &world).await
        }
        Some(Fault::CutAfter | Fault::Slow(_)) | None => answer(&mut call, &world).await,
    };
    if let Some(Fault::Slow(time)) = fault {
        tokio::time::sleep(time).await;
    }
    if matches!(fault, Some(Fault::CutAfter)) {
        return Err(Cut);
    }
    // The test may have forgotten the calls meanwhile.
    if let Some(call) = world.lock().unwrap().calls.get_mut(number) {
        call.status = Some(reply.status);
    }
    Ok(response(reply))
}

async fn answer<P: Simulated>(call: &mut Call, world: &Arc<Mutex<World<P>>>) -> Reply {
    let url = world.lock().unwrap().provider.url_to_validate(call);
    if let Some(url) = url {
        let clock = world.lock().unwrap().clock.clone();
        call.validated = Some(validate(&clock, &url).await);
    }
    let mut guard = world.lock().unwrap();
    let inner = &mut *guard;
    let is_bare = matches!(call.method.as_str(), "GET" | "DELETE") && !call.body.is_empty();
    let answered = if is_bare {
        Err(Refusal::Plain(400, format!("{} takes no body", call.method)))
    } else {
        inner.provider.answer(call, &mut inner.log)
    };
    leaks::give_out(inner.provider.secrets());
    delivery::send_queued(&Handle::current(), world, &mut inner.log);
    match answered {
        Ok(reply) | Err(Refusal::Whole(reply)) => reply,
        Err(Refusal::Plain(status, detail)) => P::error(status, &detail),
    }
}

async fn read(request: Request<Incoming>) -> Option<Call> {
    let (head, body) = request.into_parts();
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Some(Call {
        method: head.method.to_string(),
        path: head.uri.path_and_query()?.to_string(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::from_utf8(body.collect().await.ok()?.to_bytes().to_vec()).ok()?,
        at: Instant::now(),
        status: None,
        validated: None,
    })
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Full::from(reply.body)).unwrap()
}
