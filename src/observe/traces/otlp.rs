//! Sends spans to a collector, by OTLP over gRPC.
//!
//! Keeps true: an attribute has the name that OpenTelemetry's semantic conventions give it, or begins with `hookgate.`.
//! The environment variables of OpenTelemetry name the service and carry credentials (`OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`).

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use rustls::ClientConfig;
use tonic::transport::Endpoint;

use super::{OTHER_METHOD, RequestSpan, Sink, Stage};
use crate::base::clock;

/// A collector.
#[derive(Debug)]
pub struct Otlp {
    exporter: SpanExporter,
    scope: InstrumentationScope,
}

impl Otlp {
    /// For the collector with this URL. Connects when the first spans are sent. Call it within the runtime that sends.
    ///
    /// # Errors
    /// When the URL, or an environment variable of OpenTelemetry, cannot be used.
    pub fn new(url: &str, mut tls: ClientConfig) -> Result<Otlp, String> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|why| why.to_string())?;
        let endpoint = endpoint
            .user_agent(concat!("hookgate/", env!("CARGO_PKG_VERSION")))
            .map_err(|why| why.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(CONNECT_TIMEOUT);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let mut tcp = HttpConnector::new();
        // The TLS layer takes https.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let channel = endpoint.connect_with_connector_lazy(HttpsConnector::from((tcp, tls)));
        let exporter = SpanExporter::builder().with_tonic().with_channel(channel).with_timeout(SEND_TIMEOUT);
        let mut exporter = exporter.build().map_err(|why| why.to_string())?;
        exporter.set_resource(&resource());
        let scope = InstrumentationScope::builder("hookgate").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Otlp { exporter, scope })
    }
}

impl Sink for Otlp {
    async fn send(&self, batch: Vec<RequestSpan>) -> Result<(), String> {
        let spans = batch.into_iter().flat_map(|request| spans(request, &self.scope)).collect();
        self.exporter.export(spans).await.map_err(|why| why.to_string())
    }
}

/// The program, as the environment names it.
fn resource() -> Resource {
    let named = Resource::builder().build();
    let is_set = |name: &'static str| named.get(&Key::from_static_str(name)).is_some();
    let own =
        [("service.version", env!("CARGO_PKG_VERSION").to_owned()), ("service.instance.id", instance_id())];
    let own = own.into_iter().filter(|(name, _)| !is_set(name));
    let resource = Resource::builder().with_attributes(own.map(|(name, value)| KeyValue::new(name, value)));
    // The library has no other sign for a name that the environment lacks.
    let service = named.get(&Key::from_static_str("service.name"));
    if service.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
        return resource.with_service_name("hookgate").build();
    }
    resource.build()
}

/// A random UUID.
fn instance_id() -> String {
    let mut id: [u8; 16] = clock::random();
    (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80);
    let hex = hex::encode(id);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The spans of a request: its own, and one for each stage.
fn spans(request: RequestSpan, scope: &InstrumentationScope) -> Vec<SpanData> {
    let at = |after: Duration| SystemTime::from(request.began) + after;
    let context = |span_id: [u8; 8]| {
        let (trace_id, flags) = (TraceId::from_bytes(request.trace.trace_id), TraceFlags::SAMPLED);
        SpanContext::new(trace_id, SpanId::from_bytes(span_id), flags, false, TraceState::NONE)
    };
    let span = |span_context, parent: Option<[u8; 8]>, name: Cow<'static, str>, [from, to]: [Duration; 2]| {
        SpanData {
            span_context,
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name,
            start_time: at(from),
            end_time: at(to),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.clone(),
        }
    };
    let own = request.trace.span_id;
    let method = if request.method == OTHER_METHOD { "HTTP" } else { request.method };
    let name = match &request.source {
        Some(source) => format!("{method} {}", source.path).into(),
        None => method.into(),
    };
    let whole = span(context(own), request.parent, name, [Duration::ZERO, request.took]);
    let failed = request.status.is_some_and(|status| status >= 500);
    let mut spans = vec![SpanData {
        parent_span_is_remote: request.parent.is_some(),
        span_kind: SpanKind::Server,
        status: if failed { Status::error("") } else { Status::Unset },
        ..whole
    }];
    let ends = request.stages.iter().skip(1).map(|(_, begins)| *begins).chain([request.took]);
    for ((stage, begins), ends) in request.stages.iter().zip(ends) {
        let of_stage = span(context(clock::random()), Some(own), stage.label().into(), [*begins, ends]);
        let span_kind = if *stage == Stage::Enqueue { SpanKind::Producer } else { SpanKind::Internal };
        spans.push(SpanData { span_kind, ..of_stage });
    }
    spans[0].attributes = attributes(request);
    spans
}

fn attributes(request: RequestSpan) -> Vec<KeyValue> {
    let failed = request.status.is_some_and(|status| status >= 500);
    let RequestSpan { source, status, reason, client, event_id, events, body_bytes, .. } = request;
    let mut attributes = vec![
        KeyValue::new("http.request.method", request.method),
        KeyValue::new("url.scheme", request.scheme),
        KeyValue::new("network.protocol.name", "http"),
        KeyValue::new("network.protocol.version", request.http_version),
        KeyValue::new("hookgate.outcome", request.outcome),
    ];
    let mut add = |name: &'static str, value: Option<opentelemetry::Value>| {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    };
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX).into();
    add("http.response.status_code", status.map(|status| i64::from(status).into()));
    add("http.request.body.size", body_bytes.map(number));
    add("hookgate.reason", reason.map(Into::into));
    add("error.type", reason.filter(|_| failed).map(Into::into));
    add("client.address", client.map(|client| client.to_string().into()));
    add("cloudevents.event_id", event_id.map(Into::into));
    add("hookgate.events", events.map(number));
    if let Some(source) = source {
        add("http.route", Some(source.path.clone().into()));
        add("url.path", Some(source.path.into()));
        add("hookgate.source", Some(source.name.into()));
        add("hookgate.provider", Some(source.provider.into()));
    }
    attributes
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A collector that is gone without a word is known after this.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_random_uuid() {
        let [one, other] = [instance_id(), instance_id()];
        assert_ne!(one, other);
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4", "its version");
    }
}
