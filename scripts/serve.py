"""Start everything: models, private databases, schema, then the service."""

from __future__ import annotations

import typer

from serving.embedded.launcher import launch


def main() -> None:
    """Serve on HOST and PORT until Ctrl-C.

    Saves the models that the store lacks. Starts a private PostgreSQL where DATABASE_URL is unset,
    and a private Redis where REDIS_URL is unset. Brings the schema up to date.
    """
    launch()


if __name__ == "__main__":
    typer.run(main)
