//! Imports run downward only, in the order that `src/lib.rs` draws.

use std::path::{Path, PathBuf};

/// From the top: a module may use those after it. Modules on one line are of one level and may not use each other, but for the
/// pairs that a comment names.
const LAYERS: &[&[&str]] = &[
    &["main", "lib"],
    &["cli"],
    &["gateway"],
    &["backup"],
    &["live"],
    &["listener"],
    &["pipeline"],
    &["respond"],
    &["admit"],
    &["route"],
    &["outcome"],
    &["normalize"],
    &["provider"],
    &["signature"],
    &["quarantine"],
    &["spool"],
    &["inbox"],
    &["broker"],
    &["last_accepted"],
    &["audit_ledger"],
    &["database"],
    &["event"],
    &["audit"],
    &["admin"],
    &["metrics", "telemetry"],
    &["data_dir"],
    &["tls"],
    &["config"],
    &["secret", "clock", "queue_name", "peer", "farewell", "forward", "reason", "runtime"],
    &["file", "label"],
];

#[test]
fn no_module_uses_one_above_it() {
    let mut wrong = Vec::new();
    for (file, module) in sources() {
        let own = level(&module).unwrap_or_else(|| panic!("{} is in no layer", file.display()));
        for used in used_modules(&std::fs::read_to_string(&file).unwrap()) {
            let Some(level) = level(&used) else { continue };
            if level < own || (level == own && used != module) {
                wrong.push(format!("{} uses crate::{used}, which is not below it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_declared_short_and_begins_with_what_it_keeps() {
    for (file, _) in sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! ") || is_tests(&file), "{} has no first line", file.display());
        let lines = text.lines().count();
        assert!(
            lines <= 400 || is_tests(&file),
            "{} has {lines} lines; does it still hold one noun?",
            file.display()
        );
    }
}

/// Every source file and the top-level module it belongs to.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
                let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
                files.push((path, module));
            }
        }
    }
    assert!(files.len() > 30, "the walk found the sources");
    files
}

fn is_tests(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str().to_str().is_some_and(|name| name.starts_with("tests")))
}

/// The modules after each `crate::`, braces included: `use crate::{a, b::C}` uses a and b.
fn used_modules(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => used.extend(top_level(list).iter().map(|item| name(item.trim()))),
            None => used.push(name(rest)),
        }
    }
    used
}

/// The items of a brace list, nested lists unopened.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn level(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}
