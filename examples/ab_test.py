"""Sends labelled texts through both versions, tells the service the labels, and asks for a verdict.

FILE is JSON lines of `{"text": .., "label": "positive"}`, perhaps with a `"subject"`, whose text it
is. It can be run again: a text counts once, and of a subject the text that is labelled first.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import Progress

# A proxy of HTTP_PROXY cannot know the services of this machine.
os.environ.setdefault("NO_PROXY", "localhost,127.0.0.1,::1")
URL = os.environ.get("SENTIMENT_URL", "http://127.0.0.1:3000")
API_KEY = os.environ.get("SENTIMENT_API_KEY")
# A label waits about a second, until its prediction is stored.
AT_ONCE = 32


def main(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)]) -> None:
    """Compare v1 and v2 on the texts of FILE."""
    lines = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
    test = asyncio.run(_compare(lines))
    for name in ("pairs", "only_v1_right", "only_v2_right"):
        print(f"{name:>22}  {test[name]:,}")
    if interval := test["always_valid_interval"]:
        print(f"{'always_valid_interval':>22}  {interval['low']:+.2%} to {interval['high']:+.2%}")
    print(f"{'verdict':>22}  {test['verdict']['sentence']}")


async def _compare(lines: list[dict[str, str]]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {API_KEY}"} if API_KEY else {}
    async with httpx.AsyncClient(base_url=URL, headers=headers, timeout=60) as client:
        with Progress() as progress:
            waiting = iter(progress.track(lines, description="labelled texts"))

            async def work() -> None:
                for line in waiting:
                    try:
                        asked = {"text": line["text"]}
                        if "subject" in line:
                            asked["subject"] = line["subject"]
                        both = await _post(client, "/predict/ab-compare", asked)
                    except httpx.HTTPStatusError as error:
                        progress.print(error.response.json()["detail"])
                        continue
                    # The text of a comparison has the label of either of its predictions.
                    labelled = both["predictions"]["v1"]["id"]
                    feedback = {"prediction_id": labelled, "label": line["label"]}
                    await _post(client, "/feedback", feedback)

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        reply = await client.get("/analytics/ab")
        paired: dict[str, Any] = reply.raise_for_status().json()["paired"]
        return paired


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, str]) -> dict[str, Any]:
    """The reply; what is past a rate limit, or too much just now, is sent again when it may be."""
    while True:
        reply = await client.post(path, json=body)
        if reply.status_code not in (429, 503):
            break
        await asyncio.sleep(int(reply.headers["Retry-After"]))
    answer: dict[str, Any] = reply.raise_for_status().json()
    return answer


if __name__ == "__main__":
    typer.run(main)
