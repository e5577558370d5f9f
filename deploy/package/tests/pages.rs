//! Each command has a manual page, and the shells complete commands and options.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Command as Definition;

/// The pages and completions of this build.
fn pages() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookgate-pages"));
    let output = command.arg(folder.path()).arg("2026-11-30").output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// The paths of all commands, such as `hookgate events tail`, with their definitions.
fn all(command: &Definition, above: &str) -> Vec<(String, Definition)> {
    let path = format!("{above}{}", command.get_name());
    let mut found = vec![(path.clone(), command.clone())];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        found.extend(all(below, &format!("{path} ")));
    }
    found
}

#[test]
fn each_command_has_a_page_and_each_page_a_command() {
    let folder = pages();
    let commands = all(&hookgate::cli::command(), "");
    assert!(commands.len() > 30, "{} commands", commands.len());
    let mut files: Vec<String> = Vec::new();
    for (path, definition) in &commands {
        let file = format!("{}.1", path.replace(' ', "-"));
        let page = read(folder.path(), &format!("man/{file}")).replace('\\', "");
        files.push(file);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
            assert!(
                page.contains(&format!(".SH {section}")) || page.contains(&format!(".SH \"{section}\"")),
                "{path}: {section}"
            );
        }
        assert!(page.contains("2026-11-30") && page.contains("HOOKGATE_CONFIG"), "{page}");
        let arguments = definition.get_arguments().filter(|argument| !argument.is_hide_set());
        for option in arguments.filter_map(|argument| argument.get_long()) {
            assert!(page.contains(&format!("--{option}")), "{path}: its page lacks --{option}");
        }
    }
    let there = fs::read_dir(folder.path().join("man")).unwrap();
    let mut there: Vec<String> = there.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    files.sort();
    assert_eq!(there, files);
}

/// What bash offers for the last word.
fn bash(folder: &Path, words: &[&str]) -> Vec<String> {
    let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
        _hookgate hookgate \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(folder.join("completions/hookgate.bash")).args(words);
    let output = command.output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = pages();
    let offered = |words: &[&str]| bash(folder.path(), words);
    assert_eq!(offered(&["hookgate", "au"]), ["audit"]);
    assert_eq!(offered(&["hookgate", "events", "ta"]), ["tail"]);
    assert_eq!(offered(&["hookgate", "serve", "--log-f"]), ["--log-format"]);
    assert_eq!(offered(&["hookgate", "serve", "--log-format", "j"]), ["json"]);
    let first = offered(&["hookgate", ""]);
    for (path, _) in all(&hookgate::cli::command(), "") {
        if let Some(name) = path.strip_prefix("hookgate ").filter(|name| !name.contains(' ')) {
            assert!(first.iter().any(|offered| offered == name), "{name} is not offered");
        }
    }
}
