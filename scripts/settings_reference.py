"""Write every setting into .env.example and the README's table."""

from __future__ import annotations

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from core.paths import ROOT
from core.settings import Settings

README = ROOT / "README.md"
ENV_EXAMPLE = ROOT / ".env.example"
BEGIN = "<!-- settings: written by `make settings` -->"
END = "<!-- end of settings -->"


def env_example() -> str:
    """The text of .env.example: every setting with its default, commented out."""
    lines = ["# Copy to .env and uncomment what you change. The environment wins over .env.", ""]
    for name, field in Settings.model_fields.items():
        lines += [f"# {field.description}", f"# {name.upper()}={_default(field)}", ""]
    return "\n".join(lines)


def readme_table() -> str:
    """The rows of the README's table, markers included."""
    rows = [
        f"| `{name.upper()}` | {f'`{_default(field)}`' if _default(field) else ''} "
        f"| {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [BEGIN, "| setting | default | what it does |", "| --- | --- | --- |", *rows, END]
    )


def with_table(readme: str) -> str:
    """`readme` with its table replaced by the present one."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + readme_table() + after


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None or isinstance(default, SecretStr):
        return ""
    return str(int(default)) if isinstance(default, bool) else str(default)


def main() -> None:
    """Write every setting into .env.example and the README's table, from its description."""
    ENV_EXAMPLE.write_text(env_example())
    README.write_text(with_table(README.read_text()))


if __name__ == "__main__":
    typer.run(main)
