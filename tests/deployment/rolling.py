"""A rolling restart under load: the two gateways of overlays/redis, with one Redis, behind a real HAProxy.

The settings are the manifests': HAProxy probes as readinessProbe says, a gateway is sent SIGTERM after preStop's time, and the next
one follows minReadySeconds after the last one is ready. HAProxy learns at a random moment within preStop's time that a gateway ends,
as proxies do in a cluster. It sends no request twice here, so a request that meets a closed gateway is refused.

Waits are shortened to an eighth: `SPEED=1 tests/deploy rolling` takes them as they are, which is seven minutes.
"""

import collections
import http.client
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import threading
import time

import yaml
from checks import DEPLOY, HOOKGATE, SECRET, Sender, check, free_ports, require, run as tool, signed, until
from proxies import certificate, replaced

TIMES = 10
SPEED = float(os.environ.get("SPEED", "8"))
MANIFEST = yaml.safe_load((DEPLOY / "kubernetes/base/statefulset.yaml").read_text())["spec"]
[POD] = MANIFEST["template"]["spec"]["containers"]


def run():
    with tempfile.TemporaryDirectory() as folder:
        ring = Ring(pathlib.Path(folder))
        try:
            if check("overlays/redis behind HAProxy: both gateways are found ready", ring.start):
                check(f"each is restarted {TIMES} times under load: no delivery is refused, lost or doubled", ring.restarts)
        finally:
            ring.stop()


def seconds(text):
    return text / SPEED


class Pod:
    """A gateway by the config of the overlay."""

    def __init__(self, folder, redis, edge, admin):
        self.folder, self.edge, self.admin, self.process = folder, edge, admin, None
        self.folder.mkdir()
        text = (DEPLOY / "kubernetes/overlays/redis/hookgate.toml").read_text()
        for name, value in {"basiq": SECRET, "admin_token": "t" * 24, "redis_url": f"redis://127.0.0.1:{redis}/0"}.items():
            (folder / name).write_text(value)
            (folder / name).chmod(0o600)
        text = replaced(
            text,
            {
                "0.0.0.0:8080": f"127.0.0.1:{edge}",
                "0.0.0.0:9090": f"127.0.0.1:{admin}",
                "/run/secrets/hookgate": str(folder),
                "/var/lib/hookgate/data": str(folder / "data"),
                "trusted_proxies = []": 'trusted_proxies = ["127.0.0.1/32"]',
            },
        )
        (folder / "hookgate.toml").write_text(text)

    def start(self):
        with open(self.folder / "log", "ab") as log:
            command = [HOOKGATE, *POD["args"], "--config", self.folder / "hookgate.toml"]
            self.process = subprocess.Popen(command, stderr=log)

    def ready(self):
        require(self.process.poll() is None, f"the gateway ended:\n{(self.folder / 'log').read_text()[-2000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=2)
        try:
            connection.request("GET", POD["readinessProbe"]["httpGet"]["path"])
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def end(self):
        """Ends it as the kubelet does."""
        self.process.terminate()
        code = self.process.wait(MANIFEST["template"]["spec"]["terminationGracePeriodSeconds"])
        require(code == 0, f"a gateway ended with {code}")


class Ring:
    """Redis, two gateways, and HAProxy before them."""

    def __init__(self, folder):
        self.folder, self.redis, self.proxy, self.pods = folder, None, None, []
        self.lock, self.number = threading.Lock(), 0
        self.ended = collections.Counter()
        self.accepted, self.wrong = [], []

    def start(self):
        redis, self.front, *ports = free_ports(6)
        command = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--dir", self.folder]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.pods = [Pod(self.folder / f"gateway-{at + 1}", redis, *ports[2 * at : 2 * at + 2]) for at in range(2)]
        for pod in self.pods:
            pod.start()
        for pod in self.pods:
            until("a gateway is ready", pod.ready)
        certificate(self.folder)
        (self.folder / "haproxy.cfg").write_text(self.config())
        tool("haproxy", "-c", "-f", self.folder / "haproxy.cfg")
        with open(self.folder / "proxy.log", "wb") as out:
            self.proxy = subprocess.Popen(["haproxy", "-db", "-f", self.folder / "haproxy.cfg"], stdout=out, stderr=out)
        until("HAProxy runs", (self.folder / "admin.sock").exists)
        for at in range(2):
            until(f"gateway {at + 1} is up", lambda at=at: self.up(at))

    def config(self):
        """deploy/proxy/haproxy.cfg, with the probe of the manifests and without a second try."""
        probe = POD["readinessProbe"]
        text = (DEPLOY / "proxy/haproxy.cfg").read_text()
        text = re.sub(r"\n *(retries|option redispatch|retry-on)[^\n]*", "", text)
        inter, fall = int(1000 * seconds(probe["periodSeconds"])), probe["failureThreshold"]
        changes = {
            "/etc/hookgate/tls": str(self.folder),
            "bind :443 ": f"bind 127.0.0.1:{self.front} ",
            "log /dev/log local0": f"log stderr local0 notice\n    stats socket {self.folder}/admin.sock level admin",
            "maxconn 10000": "maxconn 1000",
            "uri /healthz": f"uri {probe['httpGet']['path']}",
            "inter 1s fall 1 rise 1": f"inter {inter}ms fall {fall} rise 1",
            "mode http\n": f"mode http\n    retries 0\n    timeout check {probe['timeoutSeconds']}s\n",
        }
        for at, pod in enumerate(self.pods):
            changes[f"gateway-{at + 1} 127.0.0.1:808{at}"] = f"gateway-{at + 1} 127.0.0.1:{pod.edge} check port {pod.admin}"
        return replaced(text, changes)

    def stop(self):
        for process in [self.proxy, *(pod.process for pod in self.pods), self.redis]:
            if process and process.poll() is None:
                process.terminate()
                process.wait(60)

    def ask(self, command):
        """HAProxy's answer on its socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.folder / "admin.sock"))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def up(self, at):
        rows = [row.split(",") for row in self.ask("show stat").splitlines()]
        [status] = [row[17] for row in rows if row[:2] == ["gateways", f"gateway-{at + 1}"]]
        return status == "UP"

    def restarts(self):
        stop = threading.Event()
        threads = [threading.Thread(target=self.load, args=(stop, at % 2 == 0)) for at in range(4)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        try:
            for _ in range(TIMES):
                for at in range(2):
                    self.restart(at)
                    require(not self.wrong, "")
        except Exception as error:  # noqa: BLE001: what was refused says more
            self.wrong.append(str(error))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        said = tool(HOOKGATE, "events", "tail", "--json", "--config", self.pods[0].folder / "hookgate.toml")
        queued = collections.Counter(json.loads(line)["event"]["id"] for line in said.splitlines())
        lost = [event for event in self.accepted if event not in queued]
        doubled = [event for event, times in queued.items() if times > 1]
        print(
            f"        {self.ended['sent']} deliveries in {time.monotonic() - began:.0f} s: {self.ended['2xx']} answered 2xx, "
            f"{self.ended['refused']} refused, {len(lost)} lost, {len(doubled)} doubled",
            flush=True,
        )
        log = (self.folder / "proxy.log").read_text()[-1500:] if self.wrong else ""
        require(not self.wrong, "\n".join(self.wrong[:5]) + "\n" + log)
        require(self.ended["2xx"] > 20 * TIMES, "there was little load")
        require(not lost and not doubled, f"lost: {lost[:5]}; doubled: {doubled[:5]}")

    def restart(self, at):
        pod, server = self.pods[at], f"gateways/gateway-{at + 1}"
        waits = seconds(POD["lifecycle"]["preStop"]["sleep"]["seconds"])
        learns = random.uniform(0, 0.9 * waits)
        time.sleep(learns)
        self.ask(f"set server {server} state drain")
        time.sleep(waits - learns)
        pod.end()
        pod.start()
        until("the gateway is ready again", pod.ready)
        self.ask(f"set server {server} state ready")
        until("HAProxy's probe finds it", lambda: self.up(at))
        time.sleep(seconds(MANIFEST["minReadySeconds"]))

    def load(self, stop, keeps):
        """Sends deliveries, on one connection or each on its own."""
        sender = Sender(self.front)
        while not stop.wait(0.02):
            if not keeps:
                sender = Sender(self.front)
            with self.lock:
                self.number += 1
                number = f"rolling-{self.number}"
                self.ended["sent"] += 1
            body = json.dumps({"number": number}).encode()
            try:
                status, said = sender.post(body, signed(body, number))
            except (OSError, http.client.HTTPException) as error:
                status, said, sender = 0, f"{type(error).__name__}: {error}", Sender(self.front)
            with self.lock:
                if status == 200:
                    self.ended["2xx"] += 1
                    self.accepted.append(json.loads(said)["id"])
                else:
                    self.ended["refused"] += 1
                    self.wrong.append(f"{number}: {status} {said}")
