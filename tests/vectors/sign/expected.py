"""What the gateway makes of a delivery, worked out from the rules of the event and from nothing that it printed."""

import hashlib
import json

import vectors

ABSENT = None


def compact(value):
    """JSON without blanks, as bytes."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def digest(*parts):
    """32 hex digits of a SHA-256 over parts. Each follows its length; an absent part has the length 2^64-1."""
    hashed = hashlib.sha256()
    for part in parts:
        if part is ABSENT:
            hashed.update(b"\xff" * 8)
        else:
            hashed.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return hashed.hexdigest()[:32]


def body_id(provider, kind, raw):
    """The id of an event whose provider sends none: over the provider's type and the body's SHA-256."""
    return digest(provider, kind, hashlib.sha256(raw).hexdigest())


def unreadable_id(provider, raw):
    """The id of a body that is no JSON object, where no signed id is there: over the body's SHA-256 alone."""
    return digest(provider, hashlib.sha256(raw).hexdigest())


def plain(text):
    """In lower case, everything outside a-z0-9_. as _."""
    return "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789_." else "_" for c in text.lower())


def event(
    provider, kind, own_id, verifiedby, *, subject=None, time=None, tenant=None, related=(), status=None, type=None
):
    """An event without what a vector leaves out. `kind` is the provider's type; entities are pairs."""
    entity = lambda pair: {"kind": pair[0], "id": pair[1]}
    key = f"{subject[0]}/{subject[1]}" if subject else own_id
    made = {
        "specversion": "1.0",
        "id": own_id,
        "source": f"/hooks/{provider}-test",
        "type": type or (f"{plain(provider)}.{plain(kind)}" if kind else "unmapped.unnamed"),
    }
    if subject:
        made["subject"] = key
    if time:
        made["time"] = time
    made |= {
        "datacontenttype": "application/json",
        "dataschema": "urn:hookgate:event:1",
        "provider": provider,
        "partitionkey": key,
        "verifiedby": verifiedby,
        "data": {
            "event": kind,
            "tenant": entity(tenant) if tenant else None,
            "subject": entity(subject) if subject else None,
            "related": [entity(pair) for pair in related],
            "status": {"from": status[0], "to": status[1]} if status else None,
            "links": {},
        },
    }
    return made


def accepted(*events):
    """One event, or the events of a list."""
    expect = {"status": 200, "outcome": "accepted"}
    return expect | ({"event": events[0]} if len(events) == 1 else {"events": list(events)})


def listed(*events):
    """The events of a delivery that is a list, even if it is one."""
    return {"status": 200, "outcome": "accepted", "events": list(events)}


def rejected(reason, status=401):
    """A refusal."""
    return {"status": status, "outcome": "rejected", "reason": reason}


def handshake(answer, status=200, headers=None):
    """A handshake, answered with this text."""
    expect = {"status": status, "outcome": "handshake", "answer": answer}
    return expect | ({"headers": headers} if headers else {})


class Provider:
    """Collects the vectors of a provider by theme."""

    def __init__(self, name, **source):
        self.name = name
        self.source = {"provider": name, **source}
        self.themes = {}

    def add(self, theme, name, about, headers, raw, expect, *, now, method="POST", query="", **source):
        """Adds one request. `headers` are pairs, or an object."""
        pairs = headers.items() if isinstance(headers, dict) else headers
        own, _ = vectors.path(self.name, name, query)
        request = {"method": method, "path": own, "headers": [list(pair) for pair in pairs]}
        if method != "GET":
            request |= vectors.body(raw)
        assert not any(name in known for known in self.themes.values()), name
        self.themes.setdefault(theme, {})[name] = {
            "about": about,
            "source": self.source | source,
            "now": now,
            "request": request,
            "expect": expect,
        }

    def url(self, name, query=""):
        """The URL that the sender signs."""
        return vectors.path(self.name, name, query)[1]

    def write(self):
        """Writes every theme."""
        for theme, made in self.themes.items():
            vectors.write(self.name, theme, made)
        print(self.name, sum(len(made) for made in self.themes.values()))
