"""Serves the dashboard: one page, its scripts and styles, all from here."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from web.read_api.app import redirect_with_query, redirect_without_slash

FOLDER = Path(__file__).parent / "static"


def add_dashboard(app: FastAPI) -> None:
    """The page lies beside its folder, so that what it names relatively holds behind any prefix."""

    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> RedirectResponse:
        # It lies in front of BentoML's own page, which loads a tracker of another host.
        return redirect_with_query(request, "dashboard")

    @app.get("/dashboard", include_in_schema=False)
    async def dashboard() -> FileResponse:
        return FileResponse(FOLDER / "index.html")

    @app.get("/dashboard/", include_in_schema=False)
    async def dashboard_with_slash(request: Request) -> RedirectResponse:
        return redirect_without_slash(request)

    app.mount("/dashboard", StaticFiles(directory=FOLDER))
