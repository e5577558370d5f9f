"""Collects the vectors of one provider, and builds what they expect."""

import hashlib
import hmac
import json

from vectors import body, path, write

JSON = ["content-type", "application/json"]


def identity(provider, *parts):
    """An id that is derived from parts: each with its length as 8 bytes before it. None: an absent part."""
    digest = hashlib.sha256()
    for part in (provider, *parts):
        if part is None:
            digest.update(b"\xff" * 8)
        else:
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:32]


def compact(**fields):
    """A body: JSON without blanks."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def hmac_sha256(secret, message):
    """A digest under a text secret."""
    return hmac.digest(secret.encode(), message, "sha256")


def sha256(raw):
    """A body's digest, as a part of an identity."""
    return hashlib.sha256(raw).hexdigest()


def rejected(reason, status=401):
    """The answer to a refused request."""
    return {"status": status, "outcome": "rejected", "reason": reason}


def handshake(answer, content_type):
    """The answer to a handshake."""
    return {"status": 200, "outcome": "handshake", "headers": [["content-type", content_type]], "answer": answer}


class Book:
    """The vectors of a provider, in order. A vector's file is the first word of its name."""

    def __init__(self, provider, secrets, now, verified_by):
        self.provider, self.secrets, self.now, self.verified_by = provider, secrets, now, verified_by
        self.themes = {}

    def url(self, name, query=""):
        """The URL that a sender signs."""
        return path(self.provider, name, query)[1]

    def add(self, name, about, headers, raw, expect, *, query="", method="POST", now=None, **source):
        """Adds a vector. `source` holds further keys of the source, or other secrets."""
        own = {"provider": self.provider, "secrets": self.secrets, **source}
        request = {"method": method, "path": path(self.provider, name, query)[0], "headers": headers, **body(raw)}
        vector = {"about": about, "source": own, "now": now or self.now, "request": request, "expect": expect}
        theme = self.themes.setdefault(name.split("-")[0], {})
        assert name not in theme, name
        theme[name] = vector

    def event(self, kind, event, ident, *, subject=None, time=None, tenant=None, related=(), status=None):
        """A whole event: canonical type, provider's type, id; entities are pairs of kind and id."""
        entity = lambda pair: None if pair is None else {"kind": pair[0], "id": pair[1]}
        key = "/".join(subject) if subject else ident
        return {
            "specversion": "1.0",
            "id": ident,
            "source": f"/hooks/{self.provider}-test",
            "type": kind,
            **({"subject": key} if subject else {}),
            **({"time": time} if time else {}),
            "datacontenttype": "application/json",
            "dataschema": "urn:hookgate:event:1",
            "provider": self.provider,
            "partitionkey": key,
            "verifiedby": self.verified_by,
            "data": {
                "event": event,
                "tenant": entity(tenant),
                "subject": entity(subject),
                "related": [entity(pair) for pair in related],
                "status": None if status is None else {"from": status[0], "to": status[1]},
                "links": {},
            },
        }

    def accepted(self, *parts, **more):
        """The answer to one event that enters."""
        return {"status": 200, "outcome": "accepted", "event": self.event(*parts, **more)}

    def accepted_all(self, *events):
        """The answer to a delivery of several events."""
        return {"status": 200, "outcome": "accepted", "events": list(events)}

    def refuse(self, headers, raw, other, header, malformed):
        """What every signature refuses. `headers` signs a body, `other` is another secret, `malformed` holds values of
        the header by name."""
        changed = raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:]
        unsigned = [pair for pair in headers(raw) if pair[0].lower() != header.lower()]
        self.add("refused-wrong-secret", "another secret signed", headers(raw, other), raw,
                 rejected("signature_mismatch"))
        self.add("refused-changed-body", "one bit of the body changed", headers(raw), changed,
                 rejected("signature_mismatch"))
        self.add("refused-no-signature", "no signature", unsigned, raw, rejected("signature_missing"))
        for name, value in malformed.items():
            self.add(f"refused-{name}", f"a malformed signature: {name.replace('-', ' ')}",
                     [*unsigned, [header, value]], raw, rejected("signature_malformed"))

    def save(self):
        """Writes every theme."""
        for theme, vectors in self.themes.items():
            write(self.provider, theme, vectors)
