"""Files that wait for a disk keep no thread from all else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from web.read_api.file_threads import in_file_thread


async def test_files_on_a_disk_that_stands_still_leave_the_threads_of_the_loop(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # whose opening waits for its other end, as a disk that hangs
    waiting = [asyncio.ensure_future(in_file_thread(pipe.open, "rb")) for _ in range(20)]
    try:
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(lambda: "an answer") == "an answer"
        assert not any(task.done() for task in waiting)
    finally:
        while not all(task.done() for task in waiting):
            os.close(os.open(pipe, os.O_RDWR))
            await asyncio.sleep(0.01)
        for task in waiting:
            task.result().close()
