"""What the checks of deploy/ share: how they say what they found, and a gateway to run."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
HOOKGATE = os.environ.get("HOOKGATE", "hookgate")
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
TOKEN = "0123456789abcdef0123456789abcdef"
PATIENCE = 20.0

passed = failed = left_out = 0


class Wrong(Exception):
    """A check failed."""


def check(what, work, *arguments):
    """Runs a check, and prints how it ended. It fails by an exception, or by a text that it returns."""
    global passed, failed
    try:
        why = work(*arguments)
    except Exception as error:  # noqa: BLE001: any of them is a failed check
        why = f"{type(error).__name__}: {error}" if not isinstance(error, Wrong) else str(error)
    if why:
        failed += 1
        print(f"FAILED  {what}\n        " + str(why).strip().replace("\n", "\n        "), flush=True)
    else:
        passed += 1
        print(f"ok      {what}", flush=True)
    return not why


def unchecked(what, why):
    global left_out
    left_out += 1
    print(f"NOT     {what}: {why}", flush=True)


def require(holds, what):
    if not holds:
        raise Wrong(what)


def run(*command, **options):
    """Runs a program that must end well; returns its standard output."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=False, **options
    )
    if done.returncode:
        raise Wrong(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise Wrong(f"it did not come within {PATIENCE} s: {what}")


def free_ports(count):
    """Ports below the range from which the system assigns ports to clients, so that none of those takes one meanwhile."""
    found, held = [], []
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        listener = socket.socket()
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            held.append(listener)
        found.append(port)
        if len(found) == count:
            break
    for listener in held:
        listener.close()
    return found


def check_config(text, folder, places):
    """Holds a config to `hookgate check`, its secrets and its data folder being in `folder`."""
    folder = pathlib.Path(folder)
    for path in re.findall(r'file = "([^"]+)"', text):
        name = pathlib.Path(path).name
        values = {"admin_token": TOKEN, "redis_url": "redis://127.0.0.1:6379/0"}
        (folder / name).write_text(values.get(name, SECRET))
        (folder / name).chmod(0o600)
        text = text.replace(path, str(folder / name))
    for place in places:
        text = text.replace(place, str(folder / "data"))
    (folder / "hookgate.toml").write_text(text)
    said = run(HOOKGATE, "check", "--config", folder / "hookgate.toml")
    require("warning" not in said, said)


def signed(body, number):
    """The headers of a delivery, signed as the Standard Webhooks say."""
    at = int(time.time())
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    mac = hmac.new(key, f"{number}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": number,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        "content-type": "application/json",
    }


class Gateway:
    """A gateway on a port of its own, with the embedded store."""

    def __init__(self, folder, port, settings="", sockets=None):
        self.folder, self.port = pathlib.Path(folder), port
        self.folder.mkdir(exist_ok=True)
        (self.folder / "secret").write_text(SECRET)
        (self.folder / "secret").chmod(0o600)
        (self.folder / "hookgate.toml").write_text(
            f'data_dir = "data"\nedge.listen = "127.0.0.1:{port}"\nadmin.listen = "127.0.0.1:0"\n'
            f'edge.trusted_proxies = ["127.0.0.1/32"]\nedge.health_path = "/healthz"\n{settings}\n'
            '[sources.basiq]\nprovider = "basiq"\nsecrets = [{ file = "secret" }]\n'
        )
        self.process = None
        self.start()

    def start(self, log=None):
        log = log or self.folder / "log"
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [HOOKGATE, "serve", "--json", "--config", self.folder / "hookgate.toml"], stderr=out
            )
        until("the gateway serves", lambda: self.serves(log))

    def serves(self, log):
        require(self.process.poll() is None, f"the gateway ended:\n{log.read_text()}")
        return '"message":"serving"' in log.read_text()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def lines(self, *arguments):
        said = run(HOOKGATE, *arguments, "--json", "--config", self.folder / "hookgate.toml")
        return [json.loads(line) for line in said.splitlines()]

    def events(self):
        return [line["event"] for line in self.lines("events", "tail")]


def payload(event):
    """The bytes of a delivery whose body was no JSON, as its event has them."""
    return base64.b64decode(event["data"]["payload_base64"])


class Sender:
    """A client with one kept connection, over TLS."""

    def __init__(self, port, source="127.0.0.2"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.connection = http.client.HTTPSConnection(
            "localhost", port, timeout=30, context=context, source_address=(source, 0)
        )
        # `localhost` is what the proxy's certificate is for, and may mean ::1.
        self.connection._create_connection = lambda _, timeout, source: socket.create_connection(
            ("127.0.0.1", port), timeout, source
        )

    def post(self, body, headers, path="/hooks/basiq", chunked=False):
        if chunked:
            headers, body = headers | {"transfer-encoding": "chunked"}, iter([body])
        self.connection.request("POST", path, body=body, headers=headers, encode_chunked=chunked)
        answer = self.connection.getresponse()
        return answer.status, answer.read()
