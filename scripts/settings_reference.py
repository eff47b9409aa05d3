"""Write every setting into .env.example and docs/settings.md."""

from __future__ import annotations

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from core.paths import ROOT
from core.settings import Settings

SETTINGS_PAGE = ROOT / "docs" / "settings.md"
ENV_EXAMPLE = ROOT / ".env.example"
BEGIN = "<!-- settings: written by `make settings` -->"
END = "<!-- end of settings -->"


def env_example() -> str:
    """The text of .env.example: every setting with its default, commented out."""
    lines = ["# Copy to .env and uncomment what you change. The environment wins over .env.", ""]
    for name, field in Settings.model_fields.items():
        lines += [f"# {field.description}", f"# {name.upper()}={_default(field)}", ""]
    return "\n".join(lines)


def settings_table() -> str:
    """The table of docs/settings.md, markers included."""
    rows = [
        f"| `{name.upper()}` | {f'`{_default(field)}`' if _default(field) else ''} "
        f"| {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [BEGIN, "| setting | default | what it does |", "| --- | --- | --- |", *rows, END]
    )


def with_table(page: str) -> str:
    """The page with its table replaced by `settings_table`."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + settings_table() + after


def _default(field: FieldInfo) -> str:
    default = field.default
    if default in {None, ()} or isinstance(default, SecretStr):
        return ""
    return str(int(default)) if isinstance(default, bool) else str(default)


def main() -> None:
    """Write every setting and its description into .env.example and docs/settings.md."""
    ENV_EXAMPLE.write_text(env_example())
    SETTINGS_PAGE.write_text(with_table(SETTINGS_PAGE.read_text()))


if __name__ == "__main__":
    typer.run(main)
