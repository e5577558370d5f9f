"""Checks deploy/: see tests/deploy, which installs what this needs."""

import sys

import checks
import debian
import docker
import kubernetes
import proxies
import systemd

FOLDERS = {
    "docker": docker.run,
    "kubernetes": kubernetes.run,
    "systemd": systemd.run,
    "debian": debian.run,
    "proxy": proxies.run,
}

chosen = sys.argv[1:] or list(FOLDERS)
unknown = [name for name in chosen if name not in FOLDERS]
if unknown:
    sys.exit(f"tests/deploy: there are {', '.join(FOLDERS)}, and no {', '.join(unknown)}")
for name in chosen:
    FOLDERS[name]()
print(f"{checks.passed} passed, {checks.failed} failed")
sys.exit(1 if checks.failed else 0)
