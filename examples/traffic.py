"""Sends the texts of FILE to /predict/ab for some seconds, each as a subject of its own.

FILE is JSON lines of `{"text": ..}`. It begins again at the end of the file.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import httpx
import typer

# A proxy of HTTP_PROXY cannot know the services of this machine.
os.environ.setdefault("NO_PROXY", "localhost,127.0.0.1,::1")
URL = os.environ.get("SENTIMENT_URL", "http://127.0.0.1:3000")
API_KEY = os.environ.get("SENTIMENT_API_KEY")


def main(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    seconds: Annotated[float, typer.Option(min=1)] = 60,
    per_second: Annotated[float, typer.Option(min=0.1)] = 20,
) -> None:
    """Be the users of an A/B test, and say who answered them."""
    lines = file.read_text("utf-8").splitlines()
    answers = asyncio.run(_send([json.loads(line)["text"] for line in lines], seconds, per_second))
    for (version, sentiment), number in sorted(answers.items()):
        print(f"{version}  {sentiment:<9} {number:>6}")


async def _send(texts: list[str], seconds: float, per_second: float) -> Counter[tuple[str, str]]:
    headers = {"Authorization": f"Bearer {API_KEY}"} if API_KEY else {}
    answers: Counter[tuple[str, str]] = Counter()
    async with (
        httpx.AsyncClient(base_url=URL, headers=headers, timeout=60) as client,
        asyncio.TaskGroup() as group,
    ):

        async def ask(text: str) -> None:
            body = {"text": text, "subject": str(uuid4())}
            reply = await client.post("/predict/ab", json=body)
            answer = reply.raise_for_status().json()
            answers[answer["model_version"], answer["sentiment"]] += 1

        end = time.monotonic() + seconds
        for text in itertools.cycle(texts):
            if time.monotonic() >= end:
                break
            group.create_task(ask(text))
            await asyncio.sleep(1 / per_second)
    return answers


if __name__ == "__main__":
    typer.run(main)
