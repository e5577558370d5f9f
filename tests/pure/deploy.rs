//! The files of `deploy/` agree with each other and with the rules of Compose, Docker and systemd, as far as a test can check
//! this without running them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::STANDARD_SECRET;

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy().join(name)).unwrap()
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The lines below a key, without comments, until the indentation ends.
fn block<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| *line != key);
    let indent = key.len() - key.trim_start().len();
    assert_eq!(lines.next(), Some(key), "no {key} in {text}");
    let is_inside = |line: &&str| line.trim().is_empty() || line.len() - line.trim_start().len() > indent;
    let inside = lines.take_while(is_inside).map(|line| line.split(" #").next().unwrap());
    inside.filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()).collect()
}

/// The names in a service's `secrets: [a, b]`.
fn given(service: &[&str]) -> BTreeSet<String> {
    let list = service.iter().find_map(|line| line.trim().strip_prefix("secrets: [")?.strip_suffix(']'));
    list.unwrap_or("").split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The secrets that a file names by where they are mounted, comments aside.
fn wanted(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let names = lines.filter_map(|line| line.split_once("/run/secrets/"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    names.map(|(_, name)| name.chars().take_while(|c| is_name(*c)).collect()).collect()
}

#[test]
fn every_secret_is_a_file_that_its_readers_get() {
    let compose = read("compose.yaml");
    // Compose mounts a file. It copies any other secret into the container, and refuses to where the root is read-only.
    let secrets = block(&compose, "secrets:");
    let mut files = BTreeSet::new();
    for pair in secrets.chunks(2) {
        let name = pair[0].trim().trim_end_matches(':');
        assert_eq!(pair.get(1).map(|line| line.trim()), Some(&*format!("file: secrets/{name}")));
        files.insert(name.to_owned());
    }
    let gateway = block(&compose, "  gateway:");
    assert!(gateway.contains(&"    read_only: true"), "{gateway:?}");
    assert_eq!(given(&gateway), wanted(&read("hookgate.toml")));
    assert_eq!(given(&block(&compose, "  prometheus:")), wanted(&read("prometheus/prometheus.yml")));
    assert_eq!(given(&gateway), files);
    assert!(!gateway.iter().any(|line| line.contains("environment")), "{gateway:?}");
    // They are in no image and in no commit.
    assert!(read("../.gitignore").lines().any(|line| line == "/deploy/secrets"));
    assert!(read("Dockerfile.dockerignore").starts_with("*\n"));
}

#[test]
fn the_config_of_compose_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut config = read("hookgate.toml").replace("/var/lib/hookgate", &at("data"));
    for name in wanted(&config) {
        std::fs::write(at(&name), if name == "basiq" { STANDARD_SECRET } else { "0123456789abcdef01234567" })
            .unwrap();
        config = config.replace(&format!("/run/secrets/{name}"), &at(&name));
    }
    std::fs::write(at("hookgate.toml"), config).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_hookgate"));
    let output = check.args(["check", "--config", &at("hookgate.toml")]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !said.contains("warning"), "{said}");
}

#[test]
fn the_image_is_built_from_all_that_the_build_reads() {
    let ignore = read("Dockerfile.dockerignore");
    let root = deploy().join("..");
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        ".cargo",
        "build.rs",
        "tests/load",
        "tests/support",
        "rust-toolchain.toml",
    ] {
        if root.join(needed).exists() {
            assert!(
                ignore.lines().any(|line| line == format!("!{needed}")),
                "{needed} is not in the context"
            );
        }
    }
}

#[test]
fn the_unit_may_listen_below_1024_and_has_no_other_capability() {
    let unit = read("hookgate.service");
    let value = |key: &str| {
        let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let value = values.next().map(str::to_owned);
        assert!(values.next().is_none(), "{key} is there twice");
        value
    };
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(value(key).as_deref(), Some("CAP_NET_BIND_SERVICE"), "{key}");
    }
    // In a user namespace of its own it has no capability over the host's network.
    assert_eq!(value("PrivateUsers"), None);
    assert_eq!(value("PrivateNetwork"), None);
    assert_eq!(value("NoNewPrivileges").as_deref(), Some("yes"));
}
