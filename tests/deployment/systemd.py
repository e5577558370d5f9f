"""deploy/systemd: the units, by systemd's own tools; and socket activation by systemd's own."""

import http.client
import pathlib
import re
import subprocess
import tempfile
import time
import tomllib

from checks import DEPLOY, HOOKGATE, SECRET, Wrong, check, check_config, free_ports, require, run as tool, unchecked, until

HERE = DEPLOY / "systemd"
MAX_EXPOSURE = 2.0


def run():
    with tempfile.TemporaryDirectory() as folder:
        # systemd-analyze wants the program to be there.
        for unit in ("hookgate.service", "hookgate.socket"):
            text = (HERE / unit).read_text().replace("/usr/bin/hookgate", HOOKGATE)
            (pathlib.Path(folder) / unit).write_text(text)
        units = [pathlib.Path(folder) / unit for unit in ("hookgate.service", "hookgate.socket")]
        check("the units: systemd-analyze verify has no complaint", verify, units)
        check(f"hookgate.service: systemd-analyze security, exposure under {MAX_EXPOSURE}", exposure, units[0])
    check("hookgate.socket listens where hookgate.toml says", addresses)
    check("hookgate.toml: hookgate check has no complaint", config)
    check("the gateway takes a socket from systemd-socket-activate", activated)
    unchecked("the units under a running systemd", "there is none here")


def verify(units):
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    require(done.returncode == 0 and not said.strip(), said or f"it ended with {done.returncode}")


def exposure(unit):
    said = tool("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for hookgate.service: ([0-9.]+)", said)
    require(found, said)
    require(float(found[1]) < MAX_EXPOSURE, f"exposure {found[1]}")


def addresses():
    listens = re.findall(r"^ListenStream=(.*)$", (HERE / "hookgate.socket").read_text(), re.M)
    edge = tomllib.loads((HERE / "hookgate.toml").read_text())["edge"]["listen"]
    require(listens == (edge if isinstance(edge, list) else [edge]), f"{listens}, and {edge}")


def config():
    text = (HERE / "hookgate.toml").read_text()
    credentials = set(re.findall(r"^LoadCredential=(\w+):/etc/hookgate/secrets/\1$", (HERE / "hookgate.service").read_text(), re.M))
    named = set(re.findall(r'file = "/run/credentials/hookgate\.service/(\w+)"', text))
    require(named == credentials and named, f"the config has {named}, the unit {credentials}")
    with tempfile.TemporaryDirectory() as folder:
        check_config(text, folder, ["/var/lib/hookgate"])


def activated():
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / "secret").write_text(SECRET)
        (folder / "secret").chmod(0o600)
        (folder / "hookgate.toml").write_text(
            f'edge.listen = "127.0.0.1:{port}"\nadmin.listen = "127.0.0.1:0"\nedge.health_path = "/healthz"\n'
            '[sources.basiq]\nprovider = "basiq"\nsecrets = [{ file = "secret" }]\n'
        )
        log = folder / "log"
        with open(log, "wb") as out:
            # It listens, and becomes the gateway at the first connection, which is answered.
            systemd = subprocess.Popen(
                ["systemd-socket-activate", "--listen", f"127.0.0.1:{port}", HOOKGATE, "serve", "--json"]
                + ["--config", folder / "hookgate.toml"],
                stdout=out,
                stderr=out,
            )
        try:
            until("it listens", lambda: "Listening on" in log.read_text())
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            asked.request("GET", "/healthz")
            status = asked.getresponse().status
            asked.close()
            if status != 200:
                raise Wrong(f"it answered {status}:\n{log.read_text()}")
            require(f"127.0.0.1:{port}" in log.read_text().split('"message":"serving"')[0], "another address")
        except OSError as error:
            time.sleep(0.5)
            raise Wrong(f"{error}:\n{log.read_text()}") from error
        finally:
            systemd.terminate()
            systemd.wait(30)
