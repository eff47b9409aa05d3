"""A runner answers calls with one of its keys; without a key, those of its machine."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from runners.endpoints import OPEN_PATHS, RunnerKeyMiddleware


async def status(keys: tuple[str, ...], sent_to: str, path: str, headers: dict[str, str]) -> int:
    app = RunnerKeyMiddleware(PlainTextResponse("answered"), keys)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=sent_to) as client:
        return (await client.post(path, headers=headers)).status_code


@pytest.mark.parametrize(
    ("keys", "sent_to", "shown", "expected"),
    [
        (("k",), "http://10.0.0.1:3000", "k", 200),
        (("k",), "http://10.0.0.1:3000", "other", 403),
        (("k",), "http://10.0.0.1:3000", None, 403),
        (("k",), "http://127.0.0.1:3000", None, 403),
        ((), "http://127.0.0.1:3000", None, 200),
        ((), "http://10.0.0.1:3000", None, 403),
        ((), "http://10.0.0.1:3000", "k", 403),
        (("k", "second"), "http://10.0.0.1:3000", "k", 200),
        (("k", "second"), "http://10.0.0.1:3000", "second", 200),
        (("k", "second"), "http://10.0.0.1:3000", "third", 403),
        (("k", "second"), "http://10.0.0.1:3000", "k,second", 403),
        (("k", "second"), "http://10.0.0.1:3000", "", 403),
        (("k", "second"), "http://127.0.0.1:3000", None, 403),
        (("k", "k"), "http://10.0.0.1:3000", "k", 200),
        (("with, comma", "second"), "http://10.0.0.1:3000", "with, comma", 200),
        (("with, comma", "second"), "http://10.0.0.1:3000", "with", 403),
    ],
)
async def test_call_without_a_key_or_from_another_machine_is_refused(
    keys: tuple[str, ...], sent_to: str, shown: str | None, expected: int
) -> None:
    headers = {} if shown is None else {"X-Runner-Key": shown}
    for path in ("/classify", "/describe", "/schema.json", "/anything"):
        assert await status(keys, sent_to, path, headers) == expected
    for path in OPEN_PATHS:
        assert await status(keys, sent_to, path, headers) == 200
