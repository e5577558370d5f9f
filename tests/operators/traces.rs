//! Spans of requests, as a collector gets them, and the trace that an event carries on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use support::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const FORGED: &str = "aHVzaGh1c2hodXNoaHVzaGh1c2hodXNoaHVzaGh1c2g=";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// Every request is sampled.
fn traced(collector: &Collector) -> Home {
    Home::embedded().with("tracing.otlp", collector.url()).with("tracing.sample", 1)
}

fn traceparent(event: &Value) -> &str {
    event["traceparent"].as_str().unwrap_or_else(|| panic!("no trace: {event}"))
}

#[tokio::test]
async fn a_request_is_a_span_and_its_stages_are_spans() {
    let collector = Collector::start().await;
    let home = traced(&collector);
    let gateway = home.serve().await;
    let delivery = basiq("evt-1");
    gateway.deliver(&delivery).await.assert_accepted("evt-1");

    let [span] = &collector.has_requests(1).await[..] else { panic!() };
    assert_eq!((span.name.as_str(), span.parent.as_str(), span.failed), ("POST /hooks/basiq", "", false));
    let length = delivery.body.len().to_string();
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/hooks/basiq"),
        ("url.path", "/hooks/basiq"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
        ("http.request.body.size", &length),
        ("hookgate.source", "basiq"),
        ("hookgate.provider", "basiq"),
        ("hookgate.outcome", "accepted"),
        ("hookgate.events", "1"),
        ("cloudevents.event_id", "evt-1"),
        ("hookgate.reason", ""),
        ("client.address", ""),
    ] {
        assert_eq!(span.attribute(name), value, "{name}");
    }
    assert_eq!(span.resource["service.name"], "hookgate");
    assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(span.resource["service.instance.id"].len(), 36);

    let stages = collector.stages(span);
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["admit", "read body", "verify", "normalize", "enqueue", "answer"]);
    let kinds: BTreeSet<&str> = stages.iter().map(|stage| stage.kind.as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["INTERNAL", "PRODUCER"]));
    assert!(stages.iter().all(|stage| stage.trace_id == span.trace_id && !stage.failed), "{stages:#?}");
    // One after the other, and together the request.
    let ends = stages.iter().map(|stage| stage.time.end);
    let begins = stages.iter().skip(1).map(|stage| stage.time.start).chain([span.time.end]);
    assert!(ends.eq(begins), "{stages:#?}");
    assert_eq!(stages[0].time.start, span.time.start);
    assert_eq!((span.time.start / 1_000_000_000) as i64 / 100, now() / 100, "now");
    let ids: BTreeSet<String> = collector.spans().into_iter().map(|span| span.span_id).collect();
    assert_eq!(ids.len(), 7, "each has its own id");

    let events = home.events();
    assert_eq!(traceparent(&events[0]), span.traceparent());
    let schema: Value = serde_json::from_str(hookgate::event::SCHEMA).unwrap();
    assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&events[0]), "{}", events[0]);
}

#[tokio::test]
async fn a_trace_that_comes_in_is_continued_and_one_that_is_malformed_is_replaced() {
    let collector = Collector::start().await;
    let home = traced(&collector);
    let gateway = home.serve().await;
    let continued =
        [format!("{PARENT}-01"), format!("{PARENT}-00"), PARENT.replacen("00", "cc", 1) + "-01-more"];
    for (number, header) in continued.iter().enumerate() {
        let id = format!("continued-{number}");
        let delivery = basiq(&id).with("traceparent", header).with("tracestate", "congo=t61rcWkgMzE");
        gateway.deliver(&delivery).await.assert_accepted(&id);
        let span = collector.has_requests(number + 1).await.pop().unwrap();
        assert_eq!((&*span.trace_id, &*span.parent), (&PARENT[3..35], &PARENT[36..]), "{header}");
        let event = home.events().pop().unwrap();
        assert_eq!((traceparent(&event), event.get("tracestate")), (&*span.traceparent(), None));
    }
    let malformed = [
        "",
        "none",
        PARENT,
        &PARENT.to_uppercase(),
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ];
    for (number, header) in malformed.into_iter().enumerate() {
        let id = format!("replaced-{number}");
        gateway.deliver(&basiq(&id).with("traceparent", header)).await.assert_accepted(&id);
        let span = collector.has_requests(continued.len() + number + 1).await.pop().unwrap();
        assert_eq!(span.parent, "", "{header}");
        assert_ne!(span.trace_id, PARENT[3..35], "{header}");
        assert_eq!(traceparent(&home.events().pop().unwrap()), span.traceparent());
    }
    let twice = basiq("twice").with("traceparent", &continued[0]).with("traceparent", &continued[1]);
    gateway.deliver(&twice).await.assert_accepted("twice");
    let span = collector.has_requests(continued.len() + malformed.len() + 1).await.pop().unwrap();
    assert_eq!(span.parent, "");
}

/// Anybody can send the flag, and pay nothing for the spans.
#[tokio::test]
async fn only_a_trusted_proxy_decides_what_is_sampled() {
    let collector = Collector::start().await;
    let [sampled, not] = ["01", "00"].map(|flags| format!("{PARENT}-{flags}"));
    for (trusted, sample, header, is_sampled) in [
        (false, 0.0, &sampled, false),
        (false, 0.0, &not, false),
        (false, 1.0, &sampled, true),
        (false, 1.0, &not, true),
        (true, 0.0, &sampled, true),
        (true, 0.0, &not, false),
        (true, 1.0, &sampled, true),
        (true, 1.0, &not, false),
    ] {
        let case = format!("{trusted} {sample} {header}");
        let mut home = traced(&collector).with("tracing.sample", sample);
        if trusted {
            home = home.with("edge.trusted_proxies", vec!["127.0.0.1"]);
        }
        let before = collector.requests().len();
        let mut gateway = home.serve().await;
        let delivery = basiq("evt").with("traceparent", header).with("x-forwarded-for", "203.0.113.7");
        gateway.deliver(&delivery).await.assert_accepted("evt");
        let event = home.events().pop().unwrap();
        let flags = if is_sampled { "01" } else { "00" };
        assert_eq!(
            (&traceparent(&event)[..35], &traceparent(&event)[53..]),
            (&PARENT[..35], flags),
            "{case}"
        );
        assert_ne!(traceparent(&event)[36..52], PARENT[36..], "{case}");
        // A stop sends what waits.
        gateway.sigterm();
        assert!(gateway.exit().await.success());
        assert_eq!(collector.requests().len() - before, usize::from(is_sampled), "{case}");
    }
}

#[tokio::test]
async fn without_tracing_an_event_has_no_trace() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    gateway.deliver(&basiq("evt").with("traceparent", format!("{PARENT}-01"))).await.assert_accepted("evt");
    assert_eq!(home.events()[0].get("traceparent"), None);
}

#[tokio::test]
async fn a_refusal_is_a_span_with_its_reason_and_holds_nothing_of_the_request() {
    let collector = Collector::start().await;
    let home = traced(&collector);
    let gateway = home.serve().await;
    let forged = basiq("evt").instead("webhook-signature", format!("v1,{FORGED}"));
    let unknown = Request::post("/hush-path/hush-segment?hush=query", "hush-body");
    let odd = Request::new("HUSHMETHOD", "/hooks/basiq");
    let wrong_token = Request::post("/hooks/securitize/hush-token", "hush-body");
    for (request, name, source, reason, status) in [
        (&forged, "POST /hooks/basiq", "basiq", "signature_mismatch", "401"),
        (&unknown, "POST", "", "unknown_path", "404"),
        (&odd, "HTTP /hooks/basiq", "basiq", "method_not_allowed", "405"),
        (&wrong_token, "POST /hooks/securitize", "securitize", "path_token_mismatch", "404"),
    ] {
        let before = collector.requests().len();
        assert_eq!(gateway.deliver(request).await.status.to_string(), status);
        let span = collector.has_requests(before + 1).await.pop().unwrap();
        assert_eq!((&*span.name, span.failed), (name, false));
        for (attribute, value) in [
            ("hookgate.source", source),
            ("hookgate.outcome", "rejected"),
            ("hookgate.reason", reason),
            ("http.response.status_code", status),
            ("client.address", "127.0.0.1"),
            ("error.type", ""),
        ] {
            assert_eq!(span.attribute(attribute), value, "{name}: {attribute}");
        }
        if source.is_empty() {
            assert_eq!((span.attribute("url.path"), span.attribute("http.route")), ("", ""));
        }
        assert_eq!(collector.stages(&span).last().unwrap().name, "answer");
    }
    let hung = &collector.stages(&collector.requests()[0]);
    let names: Vec<&str> = hung.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["admit", "read body", "verify", "answer"], "where it ended");

    // And of genuine ones.
    let genuine = investor_update(7, "hush-domain").with("user-agent", "hush-agent");
    let genuine = Request { target: format!("{}?hush=query", genuine.target), ..genuine };
    assert_eq!(gateway.deliver(&genuine).await.status, 200);
    gateway
        .deliver(&basiq_about("evt-2", "hush-user").with("tracestate", "hush=1"))
        .await
        .assert_accepted("evt-2");
    collector.has_requests(6).await;
    let sent = String::from_utf8_lossy(&collector.bytes()).into_owned();
    leaks::assert_none_in("the spans", &sent);
    assert!(sent.contains("evt-2") && sent.contains("/hooks/securitize"), "it can be found");
    assert!(!sent.to_lowercase().contains("hush") && !sent.contains(FORGED), "{sent}");
}

#[tokio::test]
async fn a_failure_of_the_queue_is_a_failed_span() {
    let collector = Collector::start().await;
    let home = traced(&collector).with("dedupe.store", "redis").with("queue.kind", "redis");
    let home = home.with("redis.url", format!("redis://127.0.0.1:{}", free_port()));
    let gateway = home.serve_unready().await;
    assert_eq!(gateway.deliver(&basiq("evt")).await.status, 503);
    let span = collector.has_requests(1).await.pop().unwrap();
    let told =
        ["http.response.status_code", "error.type", "hookgate.reason"].map(|name| span.attribute(name));
    assert_eq!((span.failed, told), (true, ["503", "queue_unavailable", "queue_unavailable"]));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let mut collector = Collector::start().await;
    collector.kill().await;
    let home = traced(&collector);
    let gateway = home.serve().await;
    let dropped = async || gateway.metric("hookgate_tracing_spans_dropped_total").await;
    gateway.deliver(&basiq("down-1")).await.assert_accepted("down-1");
    until("its spans are counted as dropped", async || dropped().await == 7.0).await;
    for number in 2..20 {
        let id = format!("down-{number}");
        gateway.deliver(&basiq(&id)).await.assert_accepted(&id);
    }
    let said = "spans are dropped; the collector of tracing.otlp: ";
    assert_eq!(gateway.log().matches(said).count(), 1, "{}", gateway.log());
    collector.restart().await;
    let mut number = 20;
    until("spans come again", async || {
        number += 1;
        let id = format!("up-{number}");
        gateway.deliver(&basiq(&id)).await.assert_accepted(&id);
        !collector.requests().is_empty()
    })
    .await;

    collector.answers(Answering::Hangs);
    let before = collector.requests().len();
    for number in 0..20 {
        let id = format!("hangs-{number}");
        within(Duration::from_secs(5), "an answer", gateway.deliver(&basiq(&id))).await.assert_accepted(&id);
    }
    assert!(gateway.ready().await);
    collector.answers(Answering::Takes);
    gateway.deliver(&basiq("after")).await.assert_accepted("after");
    let came = async || {
        let requests = collector.requests();
        requests.len() > before
            && requests.iter().any(|span| span.attribute("cloudevents.event_id") == "after")
    };
    until("spans come again", came).await;
}

#[tokio::test]
async fn a_gateway_ends_though_its_collector_hangs() {
    let collector = Collector::start().await;
    collector.answers(Answering::Hangs);
    let home = traced(&collector);
    let mut gateway = home.serve().await;
    gateway.deliver(&basiq("evt")).await.assert_accepted("evt");
    gateway.sigterm();
    let ended = within(Duration::from_secs(15), "the end", gateway.exit()).await;
    assert!(ended.success(), "{ended:?}");
}

#[tokio::test]
async fn a_reload_changes_the_share_and_a_restart_the_collector() {
    let collector = Collector::start().await;
    let home = traced(&collector).with("tracing.sample", 0);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");
    let home = home.with("tracing.sample", 1);
    home.write_config();
    gateway.sighup();
    let applied = "hookgate_config_reloads_total{result=\"applied\"}";
    until("it is applied", async || gateway.metric(applied).await >= 1.0).await;
    gateway.deliver(&basiq("after")).await.assert_accepted("after");
    let spans = collector.has_requests(1).await;
    assert_eq!(spans[0].attribute("cloudevents.event_id"), "after");

    let home = home.without("tracing.otlp");
    home.write_config();
    gateway.sighup();
    let needed = "tracing.otlp: needs a restart";
    until("it is refused", async || gateway.log().contains(needed)).await;
}

/// A duplicate is a request too; a conflict has the trace of its own delivery, and a replay that of the first one.
#[tokio::test]
async fn an_events_trace_is_that_of_the_request_that_brought_it() {
    let collector = Collector::start().await;
    let home = traced(&collector);
    let gateway = home.serve().await;
    let (one, other) = (atelio("customer", "one"), atelio("customer", "other"));
    let (_, id) = gateway.deliver(&one).await.taken();
    gateway.deliver(&one.clone().with("traceparent", format!("{PARENT}-01"))).await.assert_duplicate(&id);
    let (_, conflict) = gateway.deliver(&other).await.taken();
    assert_eq!(conflict, id.clone() + &other.conflict_suffix());
    let spans = collector.has_requests(3).await;
    let told: Vec<_> = spans.iter().map(|span| span.attribute("hookgate.outcome")).collect();
    assert_eq!(told, ["accepted", "duplicate", "accepted"]);
    assert_eq!(home.run(&["events", "replay", &id]).code, 0);
    let events = home.events();
    assert_eq!(ids(&events), [&id, &conflict, &id]);
    let traces: Vec<_> = events.iter().map(traceparent).collect();
    assert_eq!(traces, [spans[0].traceparent(), spans[2].traceparent(), spans[0].traceparent()]);
    assert_eq!((&events[1]["conflict"], &events[2]["replayed"]), (&true.into(), &true.into()));
}

#[tokio::test]
async fn the_environment_names_the_service_and_carries_credentials() {
    let collector = Collector::start().await;
    let home = traced(&collector);
    let mut serve = home.command(&["serve", "--json"]);
    serve
        .env("OTEL_SERVICE_NAME", "payments-gate")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test");
    serve.env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=hush");
    let gateway = home.start_command(&mut serve).listens().await;
    until("the gateway is ready", async || gateway.ready().await).await;
    gateway.deliver(&basiq("evt")).await.assert_accepted("evt");
    let [span] = &collector.has_requests(1).await[..] else { panic!() };
    assert_eq!(span.resource["service.name"], "payments-gate");
    assert_eq!(span.resource["deployment.environment"], "test");
    assert_eq!(collector.headers()[0]["x-api-key"], "hush");
    assert!(!gateway.log().contains("hush"));
}

/// The queue is away at first, so the event comes out of the spool.
#[tokio::test]
async fn an_event_out_of_the_spool_carries_its_trace_to_an_http_service() {
    let (collector, mut service) = (Collector::start().await, HttpService::start().await);
    service.kill().await;
    let home = traced(&collector).with("queue.kind", "http").with("queue.url", service.url("/events"));
    let gateway = home.with("spool.enabled", true).serve().await;
    gateway.deliver(&basiq("evt")).await.assert_accepted("evt");
    service.restart().await;
    until("the service has it", async || !service.taken().is_empty()).await;
    let [span] = &collector.has_requests(1).await[..] else { panic!() };
    let posted = &service.taken()[0];
    assert_eq!(
        (posted.header("traceparent"), traceparent(&posted.event())),
        (&*span.traceparent(), &*span.traceparent())
    );
}

#[tokio::test]
async fn an_event_in_redis_has_its_trace() {
    let (collector, redis) = (Collector::start().await, Redis::start(Persistence::Off).await);
    let home = traced(&collector).with("dedupe.store", "redis").with("queue.kind", "redis");
    let home = home.with("redis.url", redis.url());
    let gateway = home.serve().await;
    gateway.deliver(&basiq("evt")).await.assert_accepted("evt");
    gateway.deliver(&basiq("evt")).await.assert_duplicate("evt");
    let spans = collector.has_requests(2).await;
    let events = home.events();
    assert_eq!((ids(&events), traceparent(&events[0])), (vec!["evt"], &*spans[0].traceparent()));
}

/// A delivery of several events is one request, and they share its trace.
#[tokio::test]
async fn the_events_of_one_delivery_share_its_trace() {
    let collector = Collector::start().await;
    let definition = "[providers.list.event]\ntype = \"/type\"\nid = \"/id\"\neach = \"/events\"\n";
    let source = "[sources.list]\nprovider = \"list\"\nunauthenticated = true\n";
    let home = traced(&collector).with_sources(definition.to_owned() + source);
    let gateway = home.serve().await;
    let body = "{\"events\":[{\"id\":\"a\",\"type\":\"t\"},{\"id\":\"b\",\"type\":\"t\"}]}";
    assert_eq!(gateway.deliver(&Request::post("/hooks/list", body)).await.status, 200);
    let [span] = &collector.has_requests(1).await[..] else { panic!() };
    assert_eq!((span.attribute("hookgate.events"), span.attribute("cloudevents.event_id")), ("2", ""));
    let events = home.events();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| traceparent(event) == span.traceparent()));
}

#[tokio::test]
async fn spans_go_over_tls_to_a_collector_that_the_system_trusts() {
    let collector = Collector::start().await;
    let (url, certificate, _tasks) = behind_tls(&collector).await;
    let home = traced(&collector).with("tracing.otlp", url);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("untrusted")).await.assert_accepted("untrusted");
    let dropped = "hookgate_tracing_spans_dropped_total";
    until("its spans are dropped", async || gateway.metric(dropped).await > 0.0).await;
    assert_eq!(collector.spans().len(), 0);
    drop(gateway);

    let mut serve = home.command(&["serve", "--json"]);
    serve.env("SSL_CERT_FILE", home.write("authority.pem", certificate));
    let gateway = home.start_command(&mut serve).listens().await;
    until("the gateway is ready", async || gateway.ready().await).await;
    gateway.deliver(&basiq("trusted")).await.assert_accepted("trusted");
    let [span] = &collector.has_requests(1).await[..] else { panic!() };
    assert_eq!(span.attribute("cloudevents.event_id"), "trusted");
}

/// The URL of a collector behind TLS, and its certificate as PEM. The tasks end when they are dropped.
async fn behind_tls(collector: &Collector) -> (String, String, JoinSet<()>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let to = collector.address();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            connections.spawn(async move {
                let (Ok(mut client), Ok(mut server)) =
                    (tls.accept(client).await, TcpStream::connect(to).await)
                else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (url, made.cert.pem(), tasks)
}
