"""The manual pages and completions that deploy/package writes, read by the programs that show them and by the shells."""

import os
import pathlib
import subprocess
import tempfile

from checks import HOOKGATE, check, require, run as tool

PROGRAM = os.environ.get("HOOKGATE_PAGES", "hookgate-pages")


def run():
    with tempfile.TemporaryDirectory() as folder:
        folder = written(pathlib.Path(folder))
        check("each command in `hookgate --help` has a page, and so on below it", every_command, folder / "man")
        check("mandoc has no complaint about any page", mandoc, folder / "man")
        check("man and groff have no warning for any page", man, folder / "man")
        check("bash, zsh and fish read their completions", syntax, folder / "completions")
        check("bash completes commands, options and values", bash, folder / "completions")
        check("fish completes commands and options", fish, folder / "completions")
        check("zsh completes commands", zsh, folder / "completions")


def written(folder):
    """The pages, in this folder."""
    if not (folder / "man").is_dir():
        tool(PROGRAM, folder, "2026-11-30")
    return folder


def commands(*above):
    """The paths of all commands, by what `--help` lists."""
    said = tool(HOOKGATE, *above, "--help")
    if "\nCommands:\n" not in said:
        return
    listed = said.split("\nCommands:\n")[1].split("\n\n")[0]
    for line in listed.splitlines():
        name = line.split()[0] if line.startswith("  ") and line[2] != " " else "help"
        if name != "help":
            yield (*above, name)
            yield from commands(*above, name)


def every_command(folder):
    due = {"hookgate.1", *(f"hookgate-{'-'.join(path)}.1" for path in commands())}
    require(len(due) > 30, f"--help lists {len(due)} commands")
    found = {file.name for file in folder.iterdir()}
    require(found == due, f"without a page: {due - found}; without a command: {found - due}")


def mandoc(folder):
    # `style` has rules for the text of a page, such as where a line is broken, that no reader sees.
    tool("mandoc", "-T", "lint", "-W", "warning", *sorted(folder.iterdir()))


def man(folder):
    for page in sorted(folder.iterdir()):
        done = subprocess.run(
            ["man", "--warnings=w", "-E", "UTF-8", "-l", page], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MANROFFSEQ": ""},
        )
        require(done.returncode == 0 and not done.stderr, f"{page.name}: {done.stderr}")
        require("SEE ALSO" in done.stdout, f"{page.name} has no end")


def syntax(folder):
    tool("bash", "-n", folder / "hookgate.bash")
    tool("zsh", "-n", folder / "_hookgate")
    tool("fish", "--no-execute", folder / "hookgate.fish")


def bash(folder):
    def offered(*words):
        script = f'source {folder}/hookgate.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); ' + (
            '"$(complete -p hookgate | sed "s/.*-F \\([^ ]*\\).*/\\1/")" hookgate "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "${COMPREPLY[@]}"'
        )
        return tool("bash", "-c", script, "bash", *words).split()

    for words, due in {
        ("hookgate", "au"): ["audit"],
        ("hookgate", "events", "ta"): ["tail"],
        ("hookgate", "serve", "--log-f"): ["--log-format"],
        ("hookgate", "serve", "--log-format", "j"): ["json"],
    }.items():
        require(offered(*words) == due, f"{words}: {offered(*words)}")


def fish(folder):
    def offered(line):
        said = tool("fish", "--no-config", "-c", f"source {folder}/hookgate.fish; complete --do-complete '{line}'")
        return [entry.split("\t")[0] for entry in said.splitlines()]

    require(offered("hookgate au") == ["audit"], offered("hookgate au"))
    require("--log-format" in offered("hookgate serve --log"), offered("hookgate serve --log"))


def zsh(folder):
    # Without a terminal zsh completes nothing: it is asked for the function that it would call.
    said = tool("zsh", "-f", "-c", f"fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; print $_comps[hookgate]; which _hookgate")
    require(said.startswith("_hookgate\n"), said)
