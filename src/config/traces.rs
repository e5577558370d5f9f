//! The keys of `[tracing]`.

use super::Located;
use super::keys::table;
use super::section::Section;
use super::values::{fraction, text};

table! {
    /// `[tracing]`.
    pub struct Tracing, checked by check_tracing {
        /// The OpenTelemetry collector that takes the spans, by OTLP over gRPC. Without it nothing is traced. It needs a
        /// build with `--features otlp`.
        otlp: Option<Located<String>> = text(COLLECTOR, "").located().optional(), restart,
            "\"http://127.0.0.1:4317\"";
        /// The share of traces whose spans are sent. A proxy of `edge.trusted_proxies` decides itself, by the `sampled`
        /// flag of its `traceparent`.
        sample: f64 = fraction(DEFAULT_SAMPLE), live;
    }
}

fn check_tracing(tracing: &mut Tracing, section: &Section<'_>) {
    let Some(otlp) = &tracing.otlp else {
        if let Some(at) = section.given_at("sample")
            && tracing.sample != DEFAULT_SAMPLE
        {
            section.warning(at, "sample", "no effect without tracing.otlp");
        }
        return;
    };
    if !cfg!(feature = "otlp") {
        let what = "this build has no tracing; build it with `--features otlp`";
        section.problem(otlp.at, "otlp", what);
    }
    if let Some(wrong) = collector_flaw(&otlp.value) {
        section.problem(otlp.at, "otlp", format!("expected {COLLECTOR}; this one {wrong}"));
        // It may hold a password, and `check --print` shows what is kept.
        tracing.otlp = None;
    } else if otlp.value.trim_end_matches('/').ends_with(":4318") {
        let what =
            "4318 is usually OTLP over HTTP; the gateway speaks OTLP over gRPC, which is usually on 4317";
        section.warning(otlp.at, "otlp", what);
    }
}

/// The mistake in a text that is no URL of a collector. It repeats no part of the text, which may hold a password.
fn collector_flaw(text: &str) -> Option<&'static str> {
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Some("does not begin with http:// or https://");
    }
    let Ok(url) = reqwest::Url::parse(text) else { return Some("names no host, or a port that is none") };
    if !url.username().is_empty() || url.password().is_some() {
        return Some(
            "holds a user or password; OTEL_EXPORTER_OTLP_HEADERS in the environment carries credentials",
        );
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Some("has a path, which OTLP over gRPC has not");
    }
    None
}

const COLLECTOR: &str = "a URL such as \"http://127.0.0.1:4317\"";
const DEFAULT_SAMPLE: f64 = 0.01;
