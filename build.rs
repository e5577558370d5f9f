//! Tells the program which revision it is built from: `HOOKGATE_REVISION` where that is set, else git's commit.
//!
//! A release is built anew when the commit changes. A debug build is not, since each commit would then build every test anew:
//! its revision is that of the commit at which this script last ran, and says so.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    println!("cargo:rerun-if-changed=build.rs");
    let given = std::env::var(VARIABLE).ok();
    let given = given.filter(|given| !given.is_empty() && given != UNKNOWN && is_plain(given));
    let revision = given.or_else(commit).unwrap_or_else(|| UNKNOWN.to_owned());
    println!("cargo:rustc-env={VARIABLE}={revision}");
}

/// The commit that is checked out; none outside a checkout of this very project, or without git.
fn commit() -> Option<String> {
    let root = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    // In a worktree it is a file. Without it, git would find the repository of a folder above.
    if !Path::new(&root).join(".git").exists() {
        return None;
    }
    let commit = git(&root, &["rev-parse", "--short=12", "HEAD"]).filter(|commit| is_plain(commit))?;
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return Some(format!("{commit}-debug"));
    }
    // HEAD changes when another branch is checked out, its log with every commit.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&root, &["rev-parse", "--git-path", name]) {
            let path = Path::new(&root).join(path);
            if path.exists() {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
    }
    Some(commit)
}

fn git(root: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether it can stand in a metric's label and on a line.
fn is_plain(revision: &str) -> bool {
    revision.len() <= 64
        && revision.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._+/".contains(&byte))
}

const VARIABLE: &str = "HOOKGATE_REVISION";
const UNKNOWN: &str = "unknown";
