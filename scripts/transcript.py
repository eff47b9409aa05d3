"""Play a session with a running service and write it into the README."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from core.paths import ROOT
from scripts.running import run_command

README = ROOT / "README.md"
BEGIN = "<!-- transcript: written by `make transcript` -->"
END = "<!-- end of transcript -->"

BASE_URL = "http://localhost:3000"
# The first reply is computed if the service has not seen the text; the second is cached.
COMMAND = f"""\
curl -s {BASE_URL}/predict -H 'content-type: application/json' \\
    -d '{{"text": "A warm, funny, engaging film."}}' | python3 -m json.tool --indent 2"""


def main(url: Annotated[str, typer.Option()] = BASE_URL) -> None:
    """Run the command twice and write both replies, digit for digit, between the README's marks."""
    try:
        replies = [_played(url) for _ in range(2)]
    except subprocess.CalledProcessError as error:
        typer.echo(f"{url} does not answer as this service; `make serve` starts it", err=True)
        raise typer.Exit(1) from error
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    session = "\n".join([BEGIN, "```console", *replies, "```", END])
    README.write_text(before + session + after, encoding="utf-8")
    print(session)


def _played(url: str) -> str:
    """The command as a user types it, and its output."""
    command = ["bash", "-euo", "pipefail", "-c", COMMAND.replace(BASE_URL, url)]
    played = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    return f"$ {COMMAND}\n{played.stdout}"


if __name__ == "__main__":
    run_command(main)
