//! An OpenTelemetry collector of a test's own: it takes spans by OTLP over gRPC, and fails as the test tells it to.
//!
//! The messages are read by the types that OpenTelemetry generates from its protocol. A frame of gRPC is a byte, a length and a
//! message.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{eventually, free_port};

/// Gone when dropped.
pub struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// None while it is down.
    tasks: Option<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    reply: Answering,
    spans: Vec<TakenSpan>,
    bytes: Vec<u8>,
    headers: Vec<HeaderMap>,
}

/// What it does with spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answering {
    /// Takes them.
    #[default]
    Takes,
    /// Answers that it is unavailable.
    Refuses,
    /// Answers nothing until the test tells it something else.
    Hangs,
}

/// A span that it has taken.
#[derive(Clone, Debug)]
pub struct TakenSpan {
    pub name: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; empty without a parent.
    pub parent: String,
    /// Its name in the protocol, without `SPAN_KIND_`.
    pub kind: String,
    /// From begin to end, in nanoseconds since 1970.
    pub time: std::ops::Range<u64>,
    /// The values as text.
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    /// The attributes of the program that sent it.
    pub resource: BTreeMap<String, String>,
}

impl TakenSpan {
    /// An attribute, empty if it is absent.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// As a `traceparent` that is sampled.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }
}

impl Collector {
    pub async fn start() -> Collector {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut collector = Collector { address, state: Arc::default(), tasks: None };
        collector.restart().await;
        collector
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does from now on, also with spans that hang.
    pub fn answers(&self, reply: Answering) {
        self.state.lock().unwrap().reply = reply;
    }

    /// Every span that it has taken.
    pub fn spans(&self) -> Vec<TakenSpan> {
        self.state.lock().unwrap().spans.clone()
    }

    /// The spans that are requests.
    pub fn requests(&self) -> Vec<TakenSpan> {
        self.spans().into_iter().filter(|span| span.kind == "SERVER").collect()
    }

    /// Waits until it has so many requests.
    pub async fn has_requests(&self, count: usize) -> Vec<TakenSpan> {
        let found = eventually("the spans of the requests", async || {
            let found = self.requests();
            (found.len() >= count).then_some(found)
        });
        let found = found.await;
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// The stages of a request, in order.
    pub fn stages(&self, of: &TakenSpan) -> Vec<TakenSpan> {
        let mut stages = self.spans();
        stages.retain(|span| span.parent == of.span_id);
        stages.sort_by_key(|span| span.time.start);
        stages
    }

    /// Everything that it was sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().bytes.clone()
    }

    /// The headers of each export.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.state.lock().unwrap().headers.clone()
    }

    /// Cuts every connection, and listens no more.
    pub async fn kill(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        let address = self.address;
        let listener =
            eventually("the collector's port", async || TcpListener::bind(address).await.ok()).await;
        let (mut tasks, state) = (JoinSet::new(), self.state.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let state = state.clone();
                let export = service_fn(move |request| export(request, state.clone()));
                let serving = http2::Builder::new(TokioExecutor::new());
                connections.spawn(serving.serve_connection(TokioIo::new(stream), export));
                while connections.try_join_next().is_some() {}
            }
        });
        self.tasks = Some(tasks);
    }
}

async fn export(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let headers = request.headers().clone();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let reply = loop {
        let reply = state.lock().unwrap().reply;
        match reply {
            Answering::Hangs => tokio::time::sleep(super::LOOK_AGAIN).await,
            reply => break reply,
        }
    };
    let status = match reply {
        Answering::Takes => {
            take(&body, headers, &mut state.lock().unwrap());
            "0"
        }
        Answering::Refuses | Answering::Hangs => "14",
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    // An empty message.
    let answer = Full::new(Bytes::from_static(&[0; FRAME_HEAD])).with_trailers(async { Some(Ok(trailers)) });
    Ok(Response::builder().header("content-type", "application/grpc").body(answer).unwrap())
}

fn take(mut body: &[u8], headers: HeaderMap, state: &mut State) {
    state.headers.push(headers);
    state.bytes.extend(body);
    while let Some((head, rest)) = body.split_at_checked(FRAME_HEAD) {
        assert_eq!(head[0], 0, "not compressed");
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let sent = ExportTraceServiceRequest::decode(&rest[..length]).unwrap();
        for of_program in sent.resource_spans {
            let resource = texts(of_program.resource.unwrap().attributes);
            for scope in of_program.scope_spans {
                assert_eq!(scope.scope.as_ref().map(|scope| &*scope.name), Some("hookgate"));
                state.spans.extend(scope.spans.into_iter().map(|span| taken(span, &resource)));
            }
        }
        body = &rest[length..];
    }
}

fn taken(span: Span, resource: &BTreeMap<String, String>) -> TakenSpan {
    TakenSpan {
        kind: span.kind().as_str_name().trim_start_matches("SPAN_KIND_").to_owned(),
        trace_id: hex::encode(&span.trace_id),
        span_id: hex::encode(&span.span_id),
        parent: hex::encode(&span.parent_span_id),
        time: span.start_time_unix_nano..span.end_time_unix_nano,
        failed: span.status.is_some_and(|status| status.code == ERROR),
        attributes: texts(span.attributes),
        resource: resource.clone(),
        name: span.name,
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |of: KeyValue| {
        let value = match of.value.and_then(|value| value.value) {
            Some(any_value::Value::StringValue(text)) => text,
            Some(any_value::Value::IntValue(number)) => number.to_string(),
            other => panic!("{}: {other:?}", of.key),
        };
        (of.key, value)
    };
    attributes.into_iter().map(text).collect()
}

const FRAME_HEAD: usize = 5;
/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;
