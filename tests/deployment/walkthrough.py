"""deploy/README.md, "From nothing to two gateways that are scraped and alert": its commands are run as they stand there.

Changed are the program (it was built before), the ports, which others may use, and two times: Prometheus scrapes each second, and an
alert that waits a minute waits a second.
"""

import os
import pathlib
import re
import signal
import subprocess
import tempfile

from checks import DEPLOY, HOOKGATE, ROOT, check, free_ports, require
from proxies import replaced

SECTION = "## From nothing to two gateways that are scraped and alert\n"


def run():
    check("README.md, from nothing to two gateways that are scraped and alert: every command does what it says", followed)


def commands():
    """The commands in the section, for other ports."""
    section = (DEPLOY / "README.md").read_text().split(SECTION)[1].split("\n## ")[0]
    text = "".join(re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S))
    redis, front, prometheus, *others = free_ports(100)
    # The first digits of two ports that end in 0 and 1.
    edge, admin, *_ = [port // 10 for port in others if port % 10 == 0 and port + 1 in others]
    return replaced(
        text,
        {
            "cargo build --release --locked\n": "",
            "$PWD/target/release": str(pathlib.Path(HOOKGATE).parent),
            "6379": str(redis),
            "8443": str(front),
            "9095": str(prometheus),
            "808$n": f"{edge}$n",
            "909$n": f"{admin}$n",
            "; s|maxconn": f"; s|:808|:{edge}|; s|maxconn",
            's|/run/secrets|$PWD|"': f's|/run/secrets|$PWD|; s|:909|:{admin}|g; s|15s|1s|"',
            'cp "$deploy/prometheus/rules.yml" .': 'sed "s|for: 1m|for: 1s|" "$deploy/prometheus/rules.yml" > rules.yml',
        },
    )


def followed():
    with tempfile.TemporaryDirectory() as folder:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands() + "\nwait"],
            cwd=ROOT, env={**os.environ, "TMPDIR": folder}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )
        try:
            said, _ = shell.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGTERM)
            said, _ = shell.communicate()
            require(False, f"it does not end:\n{said}\n{logs(folder)}")
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
        accepted = re.findall(r'^200 \{"status":"accepted"', said, re.M)
        require(shell.returncode == 0 and len(accepted) == 40, f"it ended with {shell.returncode}:\n{said}\n{logs(folder)}")
        require(len(re.findall(r"^\S+@hookgate.events ", said, re.M)) == 3, said)


def logs(folder):
    files = sorted(pathlib.Path(folder).glob("*/*.log"))
    return "\n".join(f"{file.name}: {file.read_text()[-500:]}" for file in files)
