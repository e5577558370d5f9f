"""The Debian package that Cargo.toml describes: its files, and what its scripts do when it is installed, upgraded and removed.

It is packed here by dpkg-deb from the same description, since cargo-deb takes minutes to build; DEB=FILE names a package to check
instead. dpkg installs it in a folder (--root), where the scripts meet programs that note how they were called.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import tomllib

import pages
from checks import HOOKGATE, ROOT, check, require, run as tool, unchecked

CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
DEB = CARGO["metadata"]["deb"]


def run():
    check("Cargo.toml: every file of the package is there, and none is a secret", assets)
    if os.geteuid() != 0:
        unchecked("the package's scripts", "dpkg needs root for them")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Root(pathlib.Path(folder))
        check("it installs: files, owners, modes; nothing is started", root.install)
        check("its manual pages are found by man, and its completions by bash", root.documented)
        check("it upgrades: a changed config stays, the gateway is restarted and the socket is not", root.upgrade)
        check("it is removed: socket and gateway are stopped and disabled, config, secrets and data stay", root.remove)
        check("it is purged: config and secrets go, data stays", root.purge)
    unchecked("the package on a running system", "there is no systemd here")


def assets():
    scripts = {file.name for file in (ROOT / DEB["maintainer-scripts"]).iterdir()}
    require(scripts == {"postinst", "prerm", "postrm"}, f"the scripts are {scripts}")
    for file in (ROOT / DEB["maintainer-scripts"]).iterdir():
        tool("sh", "-n", file)
    for source, target, mode in DEB["assets"]:
        if not source.startswith("target/release/"):
            require(list(ROOT.glob(source)), f"{source} is not there")
        require("secret" not in target, f"{target} looks like a secret")
        require(mode in ("755", "644"), f"{target} has mode {mode}")
    require(DEB["conf-files"] == ["/etc/hookgate/hookgate.toml"], "the config is no conffile")


class Root:
    """A folder that dpkg takes for a system."""

    def __init__(self, folder):
        self.folder, self.root, self.called = folder, folder / "root", folder / "called"
        for name in ("var/lib/dpkg/updates", "var/lib/dpkg/info", "etc", "run/systemd/system"):
            (self.root / name).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        self.called.touch()
        programs = folder / "bin"
        programs.mkdir()
        for name in ("systemctl", "deb-systemd-invoke"):
            program = programs / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.called}"\n')
            program.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def dpkg(self, *arguments):
        """Runs dpkg; returns what its scripts called."""
        self.called.write_text("")
        options = ["--force-script-chrootless", "--force-depends", "--force-confdef", "--force-confold", "--log=/dev/null"]
        tool("dpkg", f"--root={self.root}", *options, *arguments, env=self.environment)
        return self.called.read_text().splitlines()

    def package(self, version):
        """The package as cargo-deb makes it, with this version."""
        file = self.folder / f"hookgate_{version}.deb"
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for source, target, mode in DEB["assets"]:
            for found in self.files(source):
                where = tree / target
                where = where / found.name if target.endswith("/") else where
                where.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found, where)
                where.chmod(int(mode, 8))
        control = tree / "DEBIAN"
        control.mkdir()
        architecture = tool("dpkg", "--print-architecture").strip()
        (control / "control").write_text(
            f"Package: hookgate\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {DEB['maintainer']}\n"
            f"Description: {CARGO['description']}\n"
        )
        (control / "conffiles").write_text("".join(f"{name}\n" for name in DEB["conf-files"]))
        for script in (ROOT / DEB["maintainer-scripts"]).iterdir():
            (control / script.name).write_text(script.read_text())
            (control / script.name).chmod(0o755)
        tree.chmod(0o755)
        tool("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, file)
        return file

    def files(self, source):
        """The files that a pattern of Cargo.toml means; what is built was built elsewhere."""
        if source == "target/release/hookgate":
            return [pathlib.Path(HOOKGATE)]
        if source.startswith("target/release/pages/"):
            base, source = pages.written(self.folder / "pages"), source.removeprefix("target/release/pages/")
            if source.endswith(".gz") and not list(base.glob(source)):
                tool("gzip", "-9nk", *base.glob(source.removesuffix(".gz")))
        else:
            base = ROOT
        found = sorted(base.glob(source))
        require(found, f"{source} is not there")
        return found

    def install(self):
        called = self.dpkg("--install", self.package("1.0.0"))
        require(called == ["systemctl daemon-reload"], f"its scripts called {called}")
        for name, mode in {
            "usr/bin/hookgate": 0o755,
            "usr/lib/systemd/system/hookgate.service": 0o644,
            "usr/lib/systemd/system/hookgate.socket": 0o644,
            "etc/hookgate/hookgate.toml": 0o644,
            "etc/hookgate/secrets": 0o700,
        }.items():
            found = (self.root / name).stat()
            require((found.st_mode & 0o7777, found.st_uid) == (mode, 0), f"{name}: {found.st_mode:o}, user {found.st_uid}")
        require(not list((self.root / "etc/hookgate/secrets").iterdir()), "the package has secrets")
        said = subprocess.run([self.root / "usr/bin/hookgate", "--version"], capture_output=True, check=True)
        require(said.stdout.startswith(b"hookgate "), said)

    def documented(self):
        require("EXIT STATUS" in tool("man", "-M", self.root / "usr/share/man", "hookgate-events-tail"), "man shows another page")
        completions = self.root / "usr/share/bash-completion/completions"
        said = tool(
            *("bash", "-c", "source /usr/share/bash-completion/bash_completion; _completion_loader hookgate; complete -p hookgate"),
            env={**os.environ, "BASH_COMPLETION_USER_DIR": str(completions.parent)},
        )
        require("-F _hookgate" in said, said)
        for file in ("usr/share/zsh/vendor-completions/_hookgate", "usr/share/fish/vendor_completions.d/hookgate.fish"):
            require((self.root / file).is_file(), f"{file} is not there")
        for source, target, _ in DEB["assets"]:
            if target.endswith("/") and not source.startswith("target/"):
                for file in self.files(source):
                    require((self.root / target / file.name).is_file(), f"{target}{file.name} is not there")

    def upgrade(self):
        config = self.root / "etc/hookgate/hookgate.toml"
        config.write_text(config.read_text() + "# changed here\n")
        (self.root / "etc/hookgate/secrets/basiq").write_text("kept")
        called = self.dpkg("--install", self.package("1.1.0"))
        due = ["systemctl daemon-reload", "systemctl --quiet is-active hookgate.service"]
        due.append("deb-systemd-invoke restart hookgate.service")
        require(called == due, f"its scripts called {called}")
        require("# changed here" in config.read_text(), "the config was replaced")
        require((self.root / "etc/hookgate/secrets/basiq").read_text() == "kept", "the secret is gone")

    def remove(self):
        data = self.root / "var/lib/private/hookgate"
        data.mkdir(parents=True)
        (data / "hookgate.db").touch()
        called = self.dpkg("--remove", "hookgate")
        due = ["deb-systemd-invoke stop hookgate.socket hookgate.service"]
        due += ["systemctl --quiet disable hookgate.socket hookgate.service", "systemctl daemon-reload"]
        require(called == due, f"its scripts called {called}")
        require(not (self.root / "usr/bin/hookgate").exists(), "the program is still there")
        for name in ("etc/hookgate/hookgate.toml", "etc/hookgate/secrets/basiq", "var/lib/private/hookgate/hookgate.db"):
            require((self.root / name).exists(), f"{name} is gone")

    def purge(self):
        self.dpkg("--purge", "hookgate")
        require(not (self.root / "etc/hookgate").exists(), "/etc/hookgate is still there")
        require((self.root / "var/lib/private/hookgate/hookgate.db").exists(), "the data is gone")
