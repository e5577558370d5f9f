"""deploy/proxy: each config run by its proxy in front of two gateways, and asked over TLS.

The files are taken as they are but for addresses, names of files, and times: an idle connection is closed after a second and not
after a minute, by the proxy and by the gateways in the same proportion, so that the moment at which both may close comes often.
"""

import http.client
import json
import os
import pathlib
import random
import re
import subprocess
import tempfile
import threading
import time

from checks import DEPLOY, Gateway, Sender, check, free_ports, payload, require, run as tool, signed, unchecked, until

HERE = DEPLOY / "proxy"
# The client's address, which the gateway must learn, and another that it claims to have.
CLIENT, CLAIMED = "127.0.0.2", "203.0.113.9"
# `ONLY=nginx tests/deploy proxy` checks the files with that in their names.
ONLY = os.environ.get("ONLY", "")
SIZES = (0, 1, 64 * 1024)


def run():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        certificate(folder)
        for name, start, settings in (
            ("nginx.conf", nginx, ""),
            ("nginx-stream.conf", nginx, "edge.proxy_protocol = true"),
            ("haproxy.cfg", haproxy, ""),
            ("haproxy-tcp.cfg", haproxy, "edge.proxy_protocol = true"),
            ("Caddyfile", caddy, ""),
        ):
            if ONLY not in name:
                continue
            with Front(folder, name, start, settings) as front:
                if not check(f"{name}: it starts, and passes on what the gateway answers", front.start):
                    continue
                times = 10 if name == "haproxy.cfg" else 2
                for size in SIZES:
                    check(f"{name}: a signed body of {size} B arrives unchanged and verifies", front.size, size)
                check(f"{name}: 40 requests on one connection, HTTP/1.1", front.kept)
                check(f"{name}: HTTP/2 to the proxy, a body of 64 KiB", front.http2)
                check(f"{name}: the gateway learns the client's address, and not the one that the client claims", front.address)
                check(f"{name}: no 502 where a connection idles as long as it may", front.idle)
                what = f"{name}: two gateways, each restarted {times} times under load"
                if name == "Caddyfile":
                    unchecked(what, "Debian's Caddy does not try again, so it answers 502 until its health check sees the restart")
                else:
                    check(what, front.restarts, times)
    unchecked("Envoy", "there is no config for it")


def certificate(folder):
    tool(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", folder / "edge.key", "-out", folder / "edge.pem"),
    )
    (folder / "haproxy.pem").write_text((folder / "edge.pem").read_text() + (folder / "edge.key").read_text())


def replaced(text, changes):
    """The text with each change made; every one must be possible, or the file is not what the checks think."""
    for before, after in changes.items():
        require(before in text, f"{before!r} is not in the file")
        text = text.replace(before, after)
    return text


def addresses(front):
    return {"127.0.0.1:8080": f"127.0.0.1:{front.ports[1]}", "127.0.0.1:8081": f"127.0.0.1:{front.ports[2]}"}


def nginx(front, text):
    is_stream = "proxy_protocol on" in text
    text = replaced(text, addresses(front) | {"/etc/hookgate/tls": str(front.certificates)})
    text = re.sub(r"\n *listen \[::\]:443[^\n]*", "", text)
    text = replaced(text, {"listen 443 ": f"listen 127.0.0.1:{front.ports[0]} "})
    if not is_stream:
        text = replaced(text, {"keepalive_timeout 60s;": "keepalive_timeout 1s;"})
    kept = [f"{name}_temp_path {front.folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    # Debian's nginx has the stream module as a file of its own.
    whole = f"""
{'load_module /usr/lib/nginx/modules/ngx_stream_module.so;' if is_stream else ''}
daemon off; pid {front.folder}/pid; error_log stderr warn; worker_processes 2;
events {{}}
{'stream {' if is_stream else 'http { access_log off; ' + ' '.join(kept)}
{text}
}}
"""
    file = front.folder / "nginx.conf"
    file.write_text(whole)
    tool("nginx", "-t", "-c", file)
    return ["nginx", "-c", file]


def haproxy(front, text):
    text = replaced(text, addresses(front) | {"/etc/hookgate/tls": str(front.certificates)})
    text = replaced(text, {"bind :443 ": f"bind 127.0.0.1:{front.ports[0]} ", "log /dev/log local0": "log stderr local0 notice"})
    # With many connections it wants a right to many files.
    text = replaced(text, {"maxconn 10000": "maxconn 1000"})
    if "mode http" in text:
        # Its default is 5 s: a tenth, as of the rest.
        text = text.replace("default-server check", "default-server pool-purge-delay 500ms check")
    file = front.folder / "haproxy.cfg"
    file.write_text(text)
    tool("haproxy", "-c", "-f", file)
    return ["haproxy", "-db", "-f", file]


def caddy(front, text):
    port, own = front.ports[0], front.certificates
    text = replaced(text, addresses(front) | {"hooks.example.com {": f"https://localhost:{port} {{\n\ttls {own}/edge.pem {own}/edge.key"})
    text = replaced(text, {"keepalive 60s": "keepalive 1s"})
    file = front.folder / "Caddyfile"
    # A Caddy of the test's own: nothing of it stays, and it opens no port besides.
    file.write_text("{\n\tadmin off\n\tauto_https off\n\tstorage file_system " + str(front.folder) + "\n}\n" + text)
    tool("caddy", "validate", "--config", file, "--adapter", "caddyfile")
    return ["caddy", "run", "--config", file, "--adapter", "caddyfile"]


class Front:
    """A proxy, and two gateways behind it."""

    def __init__(self, certificates, name, command, settings):
        self.certificates, self.name, self.command = certificates, name, command
        self.folder = certificates / name.replace(".", "-")
        self.folder.mkdir()
        self.settings = settings + '\nedge.idle_timeout = "1250ms"'
        self.ports, self.gateways, self.proxy, self.number = free_ports(3), [], None, 0
        self.lock = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [self.proxy] if self.proxy else []:
            process.terminate()
            process.wait(30)
        for gateway in self.gateways:
            gateway.stop()

    def start(self):
        for at, port in enumerate(self.ports[1:]):
            self.gateways.append(Gateway(self.folder / f"gateway-{at}", port, self.settings))
        command = self.command(self, (HERE / self.name).read_text())
        with open(self.folder / "proxy.log", "wb") as out:
            self.proxy = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out)
        until("the proxy passes on", self.passes)
        until("each gateway was found", lambda: self.passes() and self.passes())

    def passes(self):
        require(self.proxy.poll() is None, (self.folder / "proxy.log").read_text())
        try:
            # 404: only the gateway answers so.
            return Sender(self.ports[0]).post(b"", {}, "/nowhere")[0] == 404
        except OSError:
            return False

    def id(self):
        with self.lock:
            self.number += 1
            return f"{self.name}-{self.number}"

    def events(self):
        return {event["id"]: event for gateway in self.gateways for event in gateway.events()}

    def size(self, size):
        # Every byte there is, so that a proxy that decodes or cleans would show.
        whole = (bytes(range(255, -1, -1)) * (size // 256 + 1))[:size]
        for chunked in (False, True):
            body = whole[::-1] if chunked else whole
            number = self.id()
            status, said = Sender(self.ports[0]).post(body, signed(body, number), chunked=chunked)
            require(status == 200, f"chunked: {chunked}: {status} {said}")
            require(payload(self.events()[json.loads(said)["id"]]) == body, f"chunked: {chunked}: another body came")

    def kept(self):
        sender, sent = Sender(self.ports[0]), []
        for at in range(40):
            body = b'{"at":%d}' % at
            status, said = sender.post(body, signed(body, self.id()))
            require(status == 200, f"{at}: {status} {said}")
            sent.append(json.loads(said)["id"])
        require(set(sent) <= self.events().keys(), "events are missing")

    def http2(self):
        body, number = random.randbytes(64 * 1024), self.id()
        (self.folder / "body").write_bytes(body)
        headers = [part for name, value in signed(body, number).items() for part in ("-H", f"{name}: {value}")]
        said = tool(
            *("curl", "--silent", "--insecure", "--http2", "-w", " %{http_version} %{http_code}"),
            *("--data-binary", f"@{self.folder}/body", *headers, f"https://localhost:{self.ports[0]}/hooks/basiq"),
        )
        require(said.endswith(" 2 200"), said)
        require(payload(self.events()[json.loads(said.split(" ")[0])["id"]]) == body, "another body came")

    def address(self):
        claims = {"x-forwarded-for": CLAIMED, "x-real-ip": CLAIMED, "forwarded": f"for={CLAIMED}"}
        status, _ = Sender(self.ports[0], CLIENT).post(b"{}", claims | {"content-type": "application/json"})
        require(status == 401, f"an unsigned delivery was answered {status}")
        records = [line for gateway in self.gateways for line in gateway.lines("audit", "query", "--reason", "signature_missing")]
        clients = {record["client"] for record in records}
        require(clients == {CLIENT}, f"the client is {clients}")

    def idle(self):
        def work():
            sender = Sender(self.ports[0])
            for _ in range(4):
                # Around the second after which the proxy closes, and the one and a quarter after which the gateway does.
                time.sleep(random.uniform(0.85, 1.4))
                self.send(sender, wrong)

        wrong = []
        threads = [threading.Thread(target=work) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        require(not wrong, "\n".join(wrong[:5]))

    def restarts(self, times):
        stop, sent, wrong = threading.Event(), [], []

        def work():
            while not stop.is_set():
                number = self.send(Sender(self.ports[0]), wrong)
                if number:
                    sent.append(number)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(times):
                for gateway in self.gateways:
                    seen = len(sent)
                    gateway.stop()
                    gateway.start()
                    # The proxy has to find it again before the other goes.
                    time.sleep(1.2 if "health" in (HERE / self.name).read_text() else 0)
                    until("deliveries go on", lambda: len(sent) > seen + 6 or wrong)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        said = (self.folder / "proxy.log").read_text()[-1000:] if wrong else ""
        require(not wrong, f"{len(wrong)} of {len(sent) + len(wrong)} failed:\n" + "\n".join(wrong[:5]) + f"\n{said}")
        missing = set(sent) - self.events().keys()
        require(not missing, f"{len(missing)} events of {len(sent)} are lost")
        print(f"        {len(sent)} deliveries answered 200, none refused, none lost", flush=True)

    def send(self, sender, wrong):
        """Sends a delivery; returns the event's id if it was answered 200."""
        number = self.id()
        body = json.dumps({"number": number}).encode()
        try:
            status, said = sender.post(body, signed(body, number))
        except (OSError, http.client.HTTPException) as error:
            status, said = type(error).__name__, error
        if status == 200:
            return json.loads(said)["id"]
        wrong.append(f"{number}: {status} {said}")
        return None
