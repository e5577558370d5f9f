"""Writes request vectors: the folder's README says what a vector is."""

import base64
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PUBLIC_URL = "https://hooks.example.com"


def path(provider, name, query=""):
    """The request's path as the vector has it, and the URL that the sender signed."""
    own = f"/hooks/{provider}-test" + (f"?{query}" if query else "")
    return own, f"{PUBLIC_URL}/{provider}/{name}{own}"


def body(raw):
    """A body as a vector has it."""
    try:
        return {"body": raw.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(raw).decode()}


def write(provider, theme, vectors):
    """Writes `vectors`, an object by name, as one theme of a provider."""
    folder = ROOT / provider
    folder.mkdir(exist_ok=True)
    text = json.dumps(vectors, indent=1, ensure_ascii=False)
    (folder / f"{theme}.json").write_text(text + "\n")
