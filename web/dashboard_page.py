"""Serves the dashboard: one page, its scripts and styles, all from here."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "dashboard" / "static"


def add_dashboard(app: FastAPI) -> None:
    """The page lies beside its folder, so that what it names relatively holds behind any prefix."""

    @app.api_route("/dashboard", methods=["GET", "HEAD"], include_in_schema=False)
    async def dashboard() -> FileResponse:
        return FileResponse(FOLDER / "index.html")

    app.mount("/dashboard", StaticFiles(directory=FOLDER))
