"""The files, headings, commands, options and settings that the documents name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from core.paths import ROOT
from core.settings import Settings
from tests.documents import anchors, documents, links, sections

DOCUMENTS = documents()
# Names that look like settings and are none: of make, of other programs, of platforms, of files.
FOREIGN = {
    *(
        "BENCH",
        "HOST",
        "LABEL_0",
        "LABEL_1",
        "LOOP",
        "NEGATIVE",
        "POSITIVE",
        "PYTHON",
        "RECORD",
        "ROUNDS",
        "SECONDS",
        "SHAPE",
        "TORCH_INDEX",
        "USERS",
        "UV_LOCK_TIMEOUT",
        "WORKERS",
    ),
    "SERVES_SINCE",  # of a migration
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("BENTOML_HOME", "BENTOML_SERVE_RUNNER_MAP", "LOADTEST_API_KEYS"),
    *("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"),
    *("OTEL_TRACES_SAMPLER_ARG", "PGSSLCERT", "PGSSLKEY", "PGSSLROOTCERT"),
    *("API_PORTS", "GRAFANA_PASSWORD", "GRAFANA_PORT", "METRICS_KEY", "POSTGRES_PASSWORD"),
    *("CLUSTER_CRDS", "CLUSTER_PROGRAMS"),
    *("RAILWAY_RUN_UID", "REDIS_PASSWORD", "SENTIMENT_IMAGE"),
    *("API_STOP_GRACE", "COMPOSE_PROFILES", "REDIS_MEMORY"),
    *("ARM64_BASE_IMAGE", "BASE_IMAGE", "ENGINES", "STAND_IN_BASE"),
    *("GITHUB_TOKEN", "IMAGE_REGISTRY"),
    *("RAY_USAGE_STATS_ENABLED", "SENTIMENT_API_KEY", "SENTIMENT_URL"),
    *("SENTENCE_WORDS", "WIRE_VERSION", "CODE_OF_CONDUCT", "NO_COLOR"),
}
SETTINGS = {name.upper() for name in Settings.model_fields}
_SETTING = re.compile(r"\b(?P<name>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b|\b(?P<set>[A-Z][A-Z0-9]+)=")
_MAKE = re.compile(r"(?:`|^\$ |^| )make (?P<target>[a-z][a-z-]*)(?=[`\s])", re.MULTILINE)
_COMMAND = re.compile(
    r"(?:`|^\$ |^ *|bin/|-- )sentiment (?P<name>[a-z][a-z-]+)(?P<rest>[^`|>#\n]*)", re.MULTILINE
)
# What was written down at its time.
RECORDS = (ROOT / "docs" / "decisions", ROOT / "CHANGELOG.md", ROOT / "loadtest" / "README.md")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_every_relative_link_resolves(path: Path) -> None:
    broken = []
    for target in links(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert broken == []


def test_every_document_is_found_from_the_readme() -> None:
    found, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            targets = [target.partition("#")[0] for target in links(path.read_text())]
            files = [(path.parent / target).resolve() for target in targets if target]
            waiting += [file for file in files if file.suffix == ".md" and file.exists()]
    assert {shown(path) for path in DOCUMENTS} - {shown(path) for path in found} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_every_make_target_exists(path: Path) -> None:
    named = {
        match["target"]
        for piece in commands(path.read_text(encoding="utf-8"))
        for match in _MAKE.finditer(f"{piece}\n")
    }
    assert named - targets() == set()


def test_make_help_lists_every_target() -> None:
    listed = re.findall(r"^([a-z0-9-]+):.*## \S", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(listed) == targets()


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_every_command_has_its_named_options(path: Path) -> None:
    unknown = []
    for piece in commands(path.read_text(encoding="utf-8")):
        for match in _COMMAND.finditer(piece):
            module = ROOT / "scripts" / f"{match['name'].replace('-', '_')}.py"
            named = {word for word in match["rest"].split() if re.match(r"--\w", word)}
            if not module.exists() or {word.partition("=")[0] for word in named} - options(module):
                unknown.append(match[0])
    assert unknown == []


def test_documents_call_every_command_sentiment() -> None:
    """A user types `sentiment NAME`; `python -m scripts.NAME` is for programs."""
    named = {
        shown(path)
        for path in DOCUMENTS
        if "python -m scripts." in path.read_text(encoding="utf-8")
        and not any(path.is_relative_to(record) for record in RECORDS)
    }
    assert named == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_every_setting_exists(path: Path) -> None:
    if path.name == "CHANGELOG.md":  # names settings that are gone
        return
    named = {
        match["name"] or match["set"]
        for match in _SETTING.finditer(path.read_text(encoding="utf-8"))
    }
    assert named - SETTINGS - FOREIGN == set()


def commands(text: str) -> list[str]:
    """Return the text in backquotes, and the code blocks."""
    blocks = [block.code for section in sections(text) for block in section.blocks]
    return [*re.findall(r"`[^`\n]+`", text), *blocks]


def targets() -> set[str]:
    lines = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {target for line in lines for target in line.split()}


def options(module: Path) -> set[str]:
    """Return the options of a typer command: literal ones, and one for each parameter."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in tree.body:
        # A thin command takes its main from a room.
        if isinstance(node, ast.ImportFrom) and node.module and node.names[0].name == "main":
            return options(ROOT / f"{node.module.replace('.', '/')}.py")
    shared = {
        option
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("_options")
        for option in options(ROOT / f"{(node.module or '').replace('.', '/')}.py")
    }
    literal = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.startswith("--")
    }
    named = {
        ast.unparse(node.targets[0])
        for node in tree.body
        if isinstance(node, ast.Assign) and "Option(" in ast.unparse(node.value)
    }
    parameters = {
        f"--{argument.arg.replace('_', '-')}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for argument in [*node.args.args, *node.args.kwonlyargs]
        if argument.annotation is not None
        if "Option(" in (annotation := ast.unparse(argument.annotation)) or annotation in named
    }
    return {"--help", "--json"} | shared | literal | parameters
