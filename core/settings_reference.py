"""Every setting as it is listed: in .env.example, docs/settings.md, compose and the chart."""

from __future__ import annotations

import json

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from core.paths import ROOT
from core.settings import Settings

SETTINGS_PAGE = ROOT / "docs" / "settings.md"
ENV_EXAMPLE = ROOT / ".env.example"
COMPOSE = ROOT / "docker-compose.yml"
CHART_SCHEMA = ROOT / "deploy" / "helm" / "sentiment" / "values.schema.json"
# docker-compose.yml decides these itself, or they are about the private databases.
SET_BY_COMPOSE = frozenset(
    {"DATABASE_URL", "REDIS_URL", "DATA_FOLDER", "HOST", "PORT", "REDIS_MAX_MEMORY"}
)
# The templates of the chart decide these, or they are secrets, which its values must not hold.
SET_BY_CHART = frozenset(
    {"DATABASE_URL", "REDIS_URL", "DATA_FOLDER", "PORT", "REDIS_MAX_MEMORY"}
    | {"API_KEYS", "API_KEYS_FILE", "RUNNER_KEY", "RUNNER_KEY_ALSO_ACCEPTED"}
    | {"LOG_HASH_KEY", "LOG_HASH_KEY_FILE", "LOG_EVENTS_TOKEN"}
)
COMPOSE_BEGIN = "  # settings: written by `make settings`\n"
COMPOSE_END = "  # end of settings\n"
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


def with_passed_settings(compose: str) -> str:
    """docker-compose.yml with its list of settings replaced.

    Compose passes on a variable without a value if the shell or `.env` sets it.
    """
    before, _, rest = compose.partition(COMPOSE_BEGIN)
    _, _, after = rest.partition(COMPOSE_END)
    names = [name.upper() for name in Settings.model_fields]
    passed = "".join(f"  {name}:\n" for name in names if name not in SET_BY_COMPOSE)
    return f"{before}{COMPOSE_BEGIN}{passed}{COMPOSE_END}{after}"


def with_chart_settings(schema: str) -> str:
    """values.schema.json of the chart with its list of settings replaced."""
    parsed = json.loads(schema)
    parsed["properties"]["config"]["properties"] = {
        name.upper(): {"$ref": "#/definitions/setting", "description": field.description}
        for name, field in Settings.model_fields.items()
        if name.upper() not in SET_BY_CHART
    }
    return json.dumps(parsed, indent=2, ensure_ascii=False) + "\n"


def _default(field: FieldInfo) -> str:
    default = field.default
    if default in {None, ()} or isinstance(default, SecretStr):
        return ""
    return str(int(default)) if isinstance(default, bool) else str(default)
