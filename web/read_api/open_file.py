"""An answer from a file that may be removed while it is sent."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from core.errors import JobNotFound
from web.read_api.file_threads import in_file_thread


class OpenFileResponse(FileResponse):
    """Opens its file before anything is sent, so that all of it comes, or a 404."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises JobNotFound: the file is not there any more."""
        try:
            file = await in_file_thread(partial(Path(self.path).open, "rb"))
        except FileNotFoundError:
            raise JobNotFound from None
        with file:
            # What it opens later is the same file, also after its name is gone.
            self.path = f"/dev/fd/{file.fileno()}"
            await super().__call__(scope, receive, send)
