"""Start everything: models, private databases, schema, then the service."""

from __future__ import annotations

import sys

from scripts.running import run_command
from serving.embedded.launcher import launch


def main() -> None:
    """Serve on HOST and PORT until Ctrl-C.

    Saves the models that the store lacks. Starts a private PostgreSQL where DATABASE_URL is unset,
    and a private Redis where REDIS_URL is unset. Brings the schema up to date. If the start fails,
    `sentiment doctor` looks for more reasons.
    """
    try:
        launch()
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    except SystemExit as end:
        if end.code:
            _diagnose(end.code)
        raise


def _diagnose(failure: int | str) -> None:
    """Print the reason of a failure, and then what else is wrong."""
    # Imported here: a working start should not pay for it.
    from serving.diagnosis import console, diagnose, report

    if isinstance(failure, str):
        console.print(failure, soft_wrap=True, markup=False)
    others = [finding for finding in diagnose() if finding.problem and finding.problem != failure]
    if others:
        console.print("`sentiment doctor` also finds:")
        report(others)
    sys.exit(1)


if __name__ == "__main__":
    run_command(main)
