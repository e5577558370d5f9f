//! Sets the program's revision: `HOOKGATE_REVISION` if set, else the git commit.
//!
//! A release build runs this script again when the commit changes. A debug build does not, since each commit would
//! rebuild every test. Its revision ends in `-debug`, and may name an earlier commit.

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

/// The checked-out commit; none outside a checkout of this project, or without git.
fn commit() -> Option<String> {
    let root = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    // `.git` is a folder, or a file in a worktree. Without it, git would use the repository of a parent folder.
    if !Path::new(&root).join(".git").exists() {
        return None;
    }
    let commit = git(&root, &["rev-parse", "--short=12", "HEAD"]).filter(|commit| is_plain(commit))?;
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return Some(format!("{commit}-debug"));
    }
    // HEAD changes with a checkout of another branch, and its log with every commit.
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

/// Whether the text is safe as a metric label and in one line.
fn is_plain(revision: &str) -> bool {
    revision.len() <= 64
        && revision.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._+/".contains(&byte))
}

const VARIABLE: &str = "HOOKGATE_REVISION";
const UNKNOWN: &str = "unknown";
