"""Files of one caller that take long to open keep nobody else's waiting for all of them."""

from __future__ import annotations

import asyncio

from web.read_api.uploads import Arrivals


async def test_caller_waits_for_one_file_of_another_however_many_came_before() -> None:
    arrivals, opened = Arrivals(), []
    all_came = asyncio.Event()

    async def send(caller: str) -> None:
        with arrivals.counted(caller):
            async with arrivals.opening(caller):
                await all_came.wait()
                opened.append(caller)

    callers = ["ann"] * 10 + ["bob", "cid"]
    tasks = [asyncio.create_task(send(caller)) for caller in callers]
    await asyncio.sleep(0)
    all_came.set()
    await asyncio.gather(*tasks)
    assert opened == ["ann", "bob", "cid"] + ["ann"] * 9
