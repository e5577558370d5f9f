//! Every config fixture and the shipped examples, through the loader that the binary uses.
//!
//! `tests/config/valid/*.toml` load without a problem; a warning is one of the lines of `NAME.expected`.
//! `tests/config/invalid/*.toml` report exactly the lines of `NAME.expected`, which every one of them has.
//! With `HOOKGATE_BLESS=1` the lines are written anew, to be read in the diff before they are committed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hookgate::config::secret::SecretRef;
use hookgate::config::{self, OnConflict, QueueKind, RateLimit, Store};
use hookgate::gateway;
use hookgate::observe::metrics::Metrics;
use jiff::Timestamp;

#[test]
fn valid_files_load() {
    let mut wrong = Vec::new();
    for path in fixtures("valid") {
        let (config, problems) = config::load(&path).unwrap();
        assert!(problems.iter().all(|problem| problem.warning), "{}: {:#?}", path.display(), rendered(&path));
        wrong.extend(difference(&path, &rendered(&path)));
        let printed = config.redacted();
        let (again, problems) = config::parse(&printed, Path::new(""));
        let problems: Vec<_> = problems.iter().filter(|problem| !problem.warning).collect();
        assert!(problems.is_empty(), "{}: {printed}\n{problems:#?}", path.display());
        assert_eq!(again.redacted(), printed, "{}", path.display());
        assert!(!printed.contains("hush"), "{}: {printed}", path.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn invalid_files_report_every_problem() {
    let mut wrong = Vec::new();
    for path in fixtures("invalid") {
        let lines = rendered(&path);
        assert!(lines.iter().any(|line| !line.contains(": warning: ")), "{}: no problem", path.display());
        assert!(
            !lines.iter().any(|line| line.contains("hush")),
            "{}: shows a secret: {lines:#?}",
            path.display()
        );
        wrong.extend(difference(&path, &lines));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_expected_file_has_its_config() {
    for folder in ["valid", "invalid"] {
        for entry in fs::read_dir(root().join("tests/config").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.with_extension("toml").exists(), "{} has no config", path.display());
        }
    }
}

#[test]
fn the_shipped_configs_load_without_a_word() {
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display();
        let mut lines = rendered(&path);
        // Their secrets are the reader's to provide.
        lines.retain(|line| !line.contains(" is not set; ") && !line.contains("cannot read the secret file"));
        assert_eq!(lines, [""; 0], "{name}");
    }
}

#[test]
fn the_full_config_spells_out_the_defaults() {
    let full = fs::read_to_string(root().join("config/full.toml")).unwrap();
    let sections: BTreeSet<_> =
        ["data_dir", "edge", "admin", "redis", "dedupe", "queue", "audit", "quarantine"].into();
    let (spelled, _) = config::parse(&full, Path::new(""));
    let (defaults, problems) = config::parse("sources.any.provider = \"any\"", Path::new(""));
    assert!(problems.is_empty(), "{problems:#?}");
    let gateway = |config: &config::Config| {
        let printed = config.redacted();
        printed.split("\n[sources.").next().unwrap_or_default().to_owned()
    };
    assert_eq!(gateway(&spelled), gateway(&defaults));
    assert_eq!(defaults.edge.threads, std::thread::available_parallelism().unwrap().get().min(256));
    for section in sections {
        assert!(gateway(&spelled).contains(section), "{section} is not printed");
    }
    let names: Vec<_> = spelled.sources.iter().map(|source| source.provider.value.as_str()).collect();
    for provider in ["securitize", "anduin", "basiq", "atelio", "iof"] {
        assert!(names.contains(&provider), "{provider} has no example");
    }
}

#[test]
fn what_faces_the_internet_arrives_as_written() {
    let path = root().join("tests/config/valid/internet.toml");
    let (config, _) = config::load(&path).unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(config.edge.max_connections_per_client, 200);
    assert_eq!((config.edge.max_in_flight, config.edge.max_in_flight_bytes), (500, 64 << 20));
    assert_eq!(config.edge.trusted_proxies.len(), 2);
    assert!(config.edge.proxy_protocol);
    let tls = config.edge.tls.as_ref().unwrap();
    let folder = path.parent().unwrap();
    let files: Vec<_> = tls.pairs().into_iter().map(|pair| pair.private_key.value).collect();
    assert_eq!(files, [folder.join("edge.key"), folder.join("other.key")]);
    assert_eq!(tls.client_ca.as_ref().unwrap().value, folder.join("clients.pem"));
    assert!(config.admin.token.is_some() && config.admin.tls.is_some());
    assert_eq!(config.audit.key.as_ref().unwrap().value, SecretRef::File(folder.join("audit.key")));
    assert!(config.quarantine.enabled && config.quarantine.key.is_some());

    let source = &config.sources[0];
    let dates = |n: usize| (source.secrets[n].value.not_before, source.secrets[n].value.not_after);
    // A day counts whole: the end is the first moment after it.
    assert_eq!(dates(0), (None, Some(at("2027-02-01T00:00:00Z"))));
    assert_eq!(dates(1), (Some(at("2027-01-30T12:00:00Z")), Some(at("2027-06-29T22:00:00Z"))));
    assert_eq!(source.observe_until.as_ref().unwrap().value, at("2027-02-01T00:00:00Z"));
    assert_eq!(source.observe.len(), 4);
    assert_eq!(source.client_rate_limit, Some(RateLimit { per_second: 20, burst: 50 }));
    assert_eq!(source.client_certificate.as_ref().unwrap().value, "*.basiq.io");
    assert_eq!(source.webhook_origins, ["eventemitter.example.com"]);
}

#[test]
fn values_arrive_as_written() {
    let path = root().join("tests/config/valid/everything.toml");
    let (config, _) = config::load(&path).unwrap();
    let folder = path.parent().unwrap();
    assert_eq!(config.data_dir, folder.join("state"));
    assert_eq!(config.edge.listen.len(), 2);
    assert_eq!((config.edge.threads, config.edge.max_body), (3, 65_536));
    assert_eq!(config.edge.header_timeout, Duration::from_millis(250));
    assert_eq!(config.edge.idle_timeout, Duration::from_secs(600));
    assert_eq!(config.edge.health_path.as_ref().unwrap().value, "/");
    assert_eq!(config.edge.drain_timeout, Duration::ZERO);
    assert_eq!((config.dedupe.store, config.queue.kind), (Store::Redis, QueueKind::Redis));
    assert_eq!(config.dedupe.window.value, Duration::from_secs(3 * 86_400));
    assert_eq!(config.dedupe.window.at, config::Position { line: 27, column: 10 });
    assert_eq!(config.queue.partitions, 16);
    let [first, second] = config.sources.as_slice() else { panic!("{:#?}", config.sources) };
    assert_eq!((first.name.value.as_str(), second.name.value.as_str()), ("zeta", "alpha.beta"));
    assert_eq!(first.path.value, "/hooks/zeta");
    assert_eq!(first.secrets[0].value.reference, SecretRef::Env("ZETA".into()));
    assert_eq!(first.secrets[1].value.reference, SecretRef::File(folder.join("zeta.key")));
    assert_eq!(first.secrets[2].value.reference, SecretRef::File(PathBuf::from("/run/zeta")));
    assert_eq!(first.rate_limit, Some(RateLimit { per_second: 5, burst: 5 }));
    assert_eq!(first.on_conflict, None);
    assert_eq!(second.path.value, "/in/alpha");
    assert_eq!(second.on_conflict, Some(OnConflict::Drop));
    assert_eq!(second.rate_limit, Some(RateLimit { per_second: 500, burst: 1000 }));
    let networks: Vec<_> = second.allow_ips.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["203.0.113.0/24", "198.51.100.7/32", "2001:db8::1/128"]);
}

#[test]
fn a_health_path_is_a_path_and_no_sources() {
    let said = |path: &str| {
        let text = format!(
            "[edge]\nhealth_path = '{path}'\n[sources.a]\nprovider = 'basiq'\nsecrets = [{{ env = 'A' }}]\n\
             [sources.b]\nprovider = 'securitize'\npath_token = {{ env = 'B' }}\n"
        );
        let (_, problems) = config::parse(&text, Path::new(""));
        assert!(problems.iter().all(|it| it.key == "edge.health_path" && !it.warning), "{problems:#?}");
        problems.first().map(|problem| problem.render("f"))
    };
    for fine in ["/", "/healthz", "/healthz/", "/hooks", "/hooks/", "/hooks/a/x", "/hooks/bc", "/Hooks/a"] {
        assert_eq!(said(fine), None, "{fine}");
    }
    for (path, why) in [
        ("", "expected a path such as"),
        ("healthz", "it does not start with /"),
        ("/health?x", "only visible ASCII without ? # % is allowed"),
        ("/he%61lth", "only visible ASCII without ? # % is allowed"),
        ("//health", "it holds //"),
        ("/x/../health", "a segment . or .. would be resolved by clients"),
        ("/hooks/a", "is the path of the source a; choose another"),
        ("/hooks/b", "is the path of the source b; choose another"),
        ("/hooks/b/health", "is below the path of the source b; choose another"),
        ("/hooks/b/", "is below the path of the source b; choose another"),
    ] {
        let said = said(path).unwrap();
        assert!(said.starts_with("f:2:15: edge.health_path: ") && said.contains(why), "{path}: {said}");
    }
}

#[test]
fn printing_shows_references_and_no_plain_secret() {
    let text = "redis.url = 'redis://user:hush@hush@cache:6379/1'\n[sources.a]\nprovider = 'basiq'\n\
                secrets = ['hush', { env = 'NAME' }]\npath_token = 'hush'\n";
    let (config, problems) = config::parse(text, Path::new(""));
    assert!(problems.iter().all(|problem| problem.warning), "{problems:#?}");
    assert_eq!(problems.len(), 3);
    let printed = config.redacted();
    assert!(printed.contains("url = \"redis://<redacted>@cache:6379/1\""), "{printed}");
    assert!(printed.contains("secrets = [\"<redacted>\", { env = \"NAME\" }]"), "{printed}");
    assert!(!printed.contains("hush"), "{printed}");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn a_byte_order_mark_and_crlf_move_no_position() {
    let text = "\u{feff}[sources.basiq]\r\nprovider = \"basiq\"\r\nsecrets = [\r\n  \"hush\",\r\n]\r\n";
    let (config, problems) = config::parse(text, Path::new(""));
    assert_eq!(config.sources[0].name.at, config::Position { line: 1, column: 10 });
    let [warning] = problems.as_slice() else { panic!("{problems:#?}") };
    assert_eq!(warning.at, config::Position { line: 4, column: 3 });
}

#[test]
fn a_file_that_holds_no_text_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hookgate.toml");
    let said = config::load(&path).unwrap_err().to_string();
    assert!(said.starts_with("there is no config file ") && said.contains("hookgate.toml"), "{said}");
    fs::write(&path, b"# fine\n\xff\n").unwrap();
    let said = config::load(&path).unwrap_err().to_string();
    assert!(said.ends_with("is not UTF-8 text (line 2)"), "{said}");
    let said = config::load(folder.path()).unwrap_err().to_string();
    assert!(said.starts_with("cannot read the config file "), "{said}");
}

#[test]
fn no_text_panics_the_reader() {
    let full = fs::read_to_string(root().join("config/full.toml")).unwrap();
    let cuts = full.char_indices().map(|(at, _)| at).step_by(7);
    for cut in cuts {
        config::parse(&full[..cut], Path::new(""));
        config::parse(&full[cut..], Path::new(""));
    }
    for text in
        ["", "\u{feff}", "=", "[", "[[", "[sources", "[sources.\u{e9}]", "a = \"", "a.b.c", "sources = 1"]
    {
        assert!(!config::parse(text, Path::new("")).1.is_empty(), "{text:?}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/config").join(folder)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(!paths.is_empty());
    paths.sort();
    paths
}

/// Each problem as a line, with bare names of files. A config with definitions or subscriptions is loaded with its sources, as
/// `check` does: what they mean is found there.
fn rendered(path: &Path) -> Vec<String> {
    let (config, mut problems) = config::load(path).unwrap();
    let depends = |source: &config::Source| source.subscription.is_some() || source.reconcile.is_some();
    if !config.providers.is_empty() || config.sources.iter().any(depends) {
        problems = gateway::load(path, &Metrics::new().unwrap(), None).unwrap().problems;
    }
    let name = path.file_name().unwrap().to_string_lossy();
    let folder = format!("{}/", path.parent().unwrap().display());
    problems.iter().map(|problem| problem.render(&name).replace(&folder, "")).collect()
}

/// What to say if `lines` are not those of the sibling `.expected`.
fn difference(path: &Path, lines: &[String]) -> Option<String> {
    let beside = path.with_extension("expected");
    if std::env::var_os("HOOKGATE_BLESS").is_some() && (!lines.is_empty() || beside.exists()) {
        fs::write(&beside, lines.join("\n") + "\n").unwrap();
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    let same = expected.lines().eq(lines.iter().map(String::as_str));
    (!same).then(|| format!("--- {}\n{expected}--- but was\n{}\n", beside.display(), lines.join("\n")))
}
