//! The files of `deploy/` agree with the code and with each other. `tests/deploy` checks the rest by the tools that read them.

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

/// The secrets that a file names by where they are mounted, comments aside.
fn wanted(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let names = lines.filter_map(|line| line.split_once("/run/secrets/"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    names.map(|(_, name)| name.chars().take_while(|c| is_name(*c)).collect()).collect()
}

#[test]
fn no_secret_is_in_an_image_or_a_commit() {
    assert!(read("../.gitignore").lines().any(|line| line == "/deploy/secrets"));
    assert!(read("docker/Dockerfile.dockerignore").starts_with("*\n"));
    for line in read("docker/compose.yaml").lines().filter_map(|line| line.trim().strip_prefix("file: ")) {
        assert!(line.starts_with("../secrets/"), "{line}");
    }
}

#[test]
fn the_config_of_compose_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut config = read("docker/hookgate.toml").replace("/var/lib/hookgate", &at("data"));
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
    let ignore = read("docker/Dockerfile.dockerignore");
    let root = deploy().join("..");
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        ".cargo",
        "build.rs",
        "deploy/package",
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
fn the_unit_has_no_capability_and_gets_its_port_from_the_socket_unit() {
    let unit = read("systemd/hookgate.service");
    let value = |key: &str| {
        let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let value = values.next().map(str::to_owned);
        assert!(values.next().is_none(), "{key} is there twice");
        value
    };
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(value(key).as_deref(), Some(""), "{key}");
    }
    assert_eq!(value("Also").as_deref(), Some("hookgate.socket"));
    assert_eq!(value("PrivateNetwork"), None);
    assert_eq!(value("NoNewPrivileges").as_deref(), Some("yes"));
    let socket = read("systemd/hookgate.socket");
    let config = read("systemd/hookgate.toml");
    let listens: Vec<&str> = socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    assert!(!listens.is_empty());
    for listen in listens {
        assert!(config.contains(&format!("listen = \"{listen}\"")), "{listen}: {config}");
    }
}
