"""Play a session with a running service and write it into the README."""

from __future__ import annotations

import json
from typing import Annotated, Any

import httpx
import typer

from core.paths import ROOT

README = ROOT / "README.md"
BEGIN = "<!-- transcript: written by `make transcript` -->"
END = "<!-- end of transcript -->"

GOOD = "A warm, funny, engaging film."
# A prediction fits into a line of this length.
LINE_CHARACTERS = 220
# Sentences unlike movie reviews; the session shows the first on which the versions disagree.
DISPUTED = [
    "Solved my problem in five minutes.",
    "Does exactly what it says on the box.",
    "Battery lasts for days.",
    "Five stars, will order again.",
    "My flight was cancelled and the agent hung up on me.",
    "They refunded me the same day.",
    "Too small, had to send it back.",
]


def main(url: Annotated[str, typer.Option()] = "http://127.0.0.1:3000") -> None:
    """Play a session with the service at URL and write it between the README's marks."""
    with httpx.Client(base_url=url, timeout=30) as client:
        lines = [
            *_post(client, "/predict", {"text": GOOD}),
            *_post(client, "/predict", {"text": GOOD}),
            *_post(client, "/predict/ab-compare", {"text": _disputed(client)}),
        ]
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    session = "\n".join([BEGIN, "```console", *lines, "```", END])
    README.write_text(before + session + after)
    print(session)


def _disputed(client: httpx.Client) -> str:
    for text in DISPUTED:
        if not client.post("/predict/ab-compare", json={"text": text}).json()["agreement"]:
            return text
    raise RuntimeError("the versions agree on every sentence of DISPUTED; add another")


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> list[str]:
    sent = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    reply = client.post(path, json=body)
    return [
        f"$ curl -s localhost:3000{path} -H 'content-type: application/json' \\",
        f"    -d '{sent}'",
        *_shown(reply),
    ]


def _shown(reply: httpx.Response) -> list[str]:
    """The lines of a reply, with short numbers and one line for each prediction."""
    return [*_folded(_rounded(reply.json())).splitlines(), ""]


def _folded(value: Any, indent: str = "") -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or len(indent + flat) <= LINE_CHARACTERS:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f'{inner}"{name}": {_folded(item, inner)}' for name, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    items = [f"{inner}{_folded(item, inner)}" for item in value]
    return "[\n" + ",\n".join(items) + f"\n{indent}]"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    typer.run(main)
