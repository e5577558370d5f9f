//! Imports run downward only, in the order that `src/lib.rs` draws.

use std::path::{Path, PathBuf};

/// From the top: a module may use those after it. Modules on one line are of one level and may not use each other. A folder's
/// own row holds its files that have no row.
const LAYERS: &[&[&str]] = &[
    &["main", "lib"],
    &["cli"],
    &["gateway"],
    &["gateway::live"],
    &["subscriptions"],
    &["edge"],
    &["request"],
    &["request::pipeline"],
    &["request::answer"],
    &["request::admission"],
    &["request::source"],
    &["request::outcome"],
    &["provider::normalize"],
    &["provider"],
    &["provider::signature"],
    &["provider::pointer"],
    &["provider::form", "provider::object", "provider::signed_request"],
    &["durable"],
    &["durable::backup"],
    &["durable::quarantine"],
    &["durable::spool"],
    &["durable::inbox"],
    &["durable::broker"],
    &["durable::last_accepted", "durable::reconcile"],
    &["durable::audit_ledger"],
    &["durable::database"],
    &["durable::data_dir"],
    &["event"],
    &["observe"],
    &["observe::audit"],
    &["observe::admin"],
    &["observe::traces"],
    &["observe::console"],
    &["observe::metrics", "observe::telemetry"],
    &["net"],
    &["net::tls"],
    &["net::lingering_close", "net::forward"],
    &["config"],
    &["config::secret", "config::queue_name"],
    &["base"],
    &["base::causes", "base::clock", "base::peer", "base::reason", "base::runtime", "base::trace_context"],
    &["base::file", "base::label"],
];

#[test]
fn no_module_uses_one_above_it() {
    let mut wrong = Vec::new();
    for (file, module) in sources() {
        let own = level(&module).unwrap_or_else(|| panic!("{} is in no layer", file.display()));
        for used in used_modules(&std::fs::read_to_string(&file).unwrap()) {
            let Some(level) = level(&used) else { continue };
            if level < own || (level == own && row(&used) != row(&module)) {
                wrong.push(format!("{} uses crate::{used}, which is not below it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The layers allow it, but a provider's API is no part of the way of a request.
#[test]
fn subscriptions_use_nothing_of_the_way_of_a_request() {
    let mut files = 0;
    for (file, module) in sources() {
        if !module.starts_with("subscriptions") {
            continue;
        }
        files += 1;
        for used in used_modules(&std::fs::read_to_string(&file).unwrap()) {
            let used = used.split("::").next().unwrap();
            assert!(!["request", "edge"].contains(&used), "{} uses crate::{used}", file.display());
        }
    }
    assert!(files > 1);
}

/// A body that counts as verified although no delivery brought it: each of its makers has one caller.
#[test]
fn a_payload_of_a_providers_api_is_made_in_two_places() {
    let callers = |maker: &str| {
        let call = format!("ProviderApiPayload::{maker}(");
        let calls = sources().into_iter().flat_map(|(file, _)| {
            let text = std::fs::read_to_string(&file).unwrap();
            vec![file; text.matches(&call).count()]
        });
        calls.collect::<Vec<_>>()
    };
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(callers("out_of_a_log"), [src.join("subscriptions/catch_up.rs")]);
    assert_eq!(callers("out_of_an_order"), [src.join("gateway/reconcile/orders.rs")]);
}

#[test]
fn every_file_is_declared_short_and_begins_with_what_it_keeps() {
    for (file, _) in sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! ") || is_tests(&file), "{} has no first line", file.display());
        let lines = text.lines().count();
        assert!(
            lines <= 400 || is_tests(&file),
            "{} has {lines} lines, and a file may have 400: move a part of it to a module of its own",
            file.display()
        );
    }
}

/// Every source file and its module, two levels deep.
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
                let parts = path.strip_prefix(&root).unwrap().with_extension("");
                let parts: Vec<_> = parts.iter().take(2).map(|part| part.to_str().unwrap()).collect();
                let module = parts.join("::");
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

/// The modules after each `crate::`, two levels deep, braces included: `use crate::a::{b, c::D}` uses a::b and a::c.
fn used_modules(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    code.match_indices("crate::").flat_map(|(at, found)| paths(&code[at + found.len()..], 2)).collect()
}

/// The paths at the start of a text, so many names deep.
fn paths(text: &str, depth: usize) -> Vec<String> {
    if let Some(list) = text.strip_prefix('{') {
        return top_level(list).iter().flat_map(|item| paths(item.trim(), depth)).collect();
    }
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match text[name.len()..].strip_prefix("::") {
        Some(rest) if depth > 1 => {
            paths(rest, depth - 1).iter().map(|inner| format!("{name}::{inner}")).collect()
        }
        _ => vec![name],
    }
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
    LAYERS.iter().position(|layer| layer.contains(&row(module)))
}

/// The row that holds a module: its own, else its folder's.
fn row(module: &str) -> &str {
    let has_row = |name: &str| LAYERS.iter().any(|layer| layer.contains(&name));
    if has_row(module) { module } else { module.split("::").next().unwrap() }
}
