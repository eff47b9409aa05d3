"""An ASGI app that is made when serving starts."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send


class LazyApp(Starlette):
    """Has no routes until it becomes another app.

    It is a Starlette app because BentoML asks only those for their routes, to tell what is for them
    from what is for others.
    """

    def set_app(self, app: Starlette) -> None:
        self._app = app
        self.router = app.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
