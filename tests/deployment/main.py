"""Checks deploy/: see tests/deploy, which installs what this needs."""

import importlib
import os
import shutil
import sys
import tempfile

import checks

# What each folder's checks run; without one of these they are left out, and it says so.
FOLDERS = {
    "docker": ["promtool", "hadolint", "check-jsonschema", "compose-lint"],
    "kubernetes": ["promtool", "check-jsonschema"],
    "systemd": ["systemd-analyze"],
    "package": ["mandoc", "man", "groff", "bash", "zsh", "fish", os.environ["HOOKGATE_PAGES"]],
    "debian": ["dpkg", "dpkg-deb", "man", os.environ["HOOKGATE_PAGES"]],
    "proxy": ["openssl", "curl", "nginx", "haproxy", "caddy"],
    "walkthrough": ["openssl", "curl", "haproxy", "redis-server", "prometheus"],
    "rolling": ["openssl", "haproxy", "redis-server"],
}
MODULES = {"package": "pages", "proxy": "proxies"}

chosen = sys.argv[1:] or list(FOLDERS)
unknown = [name for name in chosen if name not in FOLDERS]
if unknown:
    sys.exit(f"tests/deploy: there are {', '.join(FOLDERS)}, and no {', '.join(unknown)}")
# Some of the programs write into the home folder.
home = tempfile.TemporaryDirectory()
os.environ["HOME"] = home.name
for name in chosen:
    missing = [program for program in FOLDERS[name] if not shutil.which(program)]
    if missing:
        checks.unchecked(f"ANYTHING of {name}", f"{', '.join(missing)} could not be installed")
        continue
    try:
        part = importlib.import_module(MODULES.get(name, name))
    except ModuleNotFoundError as why:
        checks.unchecked(f"ANYTHING of {name}", f"{why.name} could not be installed")
    else:
        part.run()
print(f"{checks.passed} passed, {checks.failed} failed, {checks.left_out} skipped")
sys.exit(1 if checks.failed else 0)
