"""Renders models of the registry for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models.registry.catalogue import Entry
from models.registry.held_out import SideBySide, held_out_sentence
from models.registry.removal import Verdict

_MIB = 1 << 20
# Shown in their own tables, or above.
_SHOWN_ELSEWHERE = {
    "engines", "files", "gates", "revision", "labels", "max_tokens", "pad_token_id", "speeds"
}  # fmt: skip


def list_view(entries: Sequence[Entry]) -> Table:
    # It fits 80 columns unshortened: a shortened tag cannot be copied.
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for column in ("model", "as", "engines", "acc.", "saved", "MiB"):
        right_aligned = column in {"acc.", "MiB"}
        table.add_column(column, justify="right" if right_aligned else "left", no_wrap=True)
    for entry in entries:
        table.add_row(
            entry.model.tag,
            "\n".join(entry.configured_as) or "-",
            "\n".join(entry.model.engines),
            _percent(entry.accuracy),
            f"{entry.created:%Y-%m-%d}",
            f"{entry.size_bytes / _MIB:.0f}",
        )
    return table


def entry_view(entry: Entry) -> RenderableType:
    model, metadata = entry.model, entry.metadata
    facts = _facts(
        {
            "model": model.tag,
            "configured as": ", ".join(entry.configured_as) or "-",
            "saved": _time(entry.created),
            "revision": f"{model.revision} (SHA-256 of the weights and how they are read)",
            "labels": ", ".join(model.labels),
            "tokens at most": model.max_tokens,
            "size": f"{entry.size_bytes / _MIB:.0f} MiB",
            **{
                name: _time(datetime.fromisoformat(value)) if name == "imported_at" else value
                for name, value in metadata.items()
                if name not in _SHOWN_ELSEWHERE and value != {}
            },
        }
    )
    return Group(facts, Text(), _gates(metadata), Text(), _engines(metadata))


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def removal_view(verdicts: Sequence[Verdict], *, dry_run: bool) -> RenderableType:
    """What is deleted, what stays and why, and the bytes that it frees."""
    lines, freed = Text(), 0
    for verdict in verdicts:
        goes = not verdict.kept_because
        freed += verdict.size_bytes if goes else 0
        state = ("would be deleted" if dry_run else "deleted") if goes else "stays"
        lines.append(f"{verdict.tag} {state}\n", "red" if goes else "")
        for reason in verdict.kept_because:
            lines.append(f"    {reason}\n", "dim")
    return lines.append(f"{freed / _MIB:.0f} MiB {'would be freed' if dry_run else 'freed'}")


def comparison(first: Entry, second: Entry, compared: SideBySide) -> dict[str, Any]:
    """The comparison as JSON values."""
    outcomes = compared.outcomes
    right = (outcomes.only_v1_right, outcomes.only_v2_right)
    return {
        "texts": outcomes.labelled,
        "models": [
            {
                "tag": entry.model.tag,
                "accuracy": (outcomes.both_right + alone) / outcomes.labelled,
                "right_alone": alone,
            }
            for entry, alone in zip((first, second), right, strict=True)
        ],
        "agreement": compared.agreement,
        "mean_probability_difference": compared.mean_difference,
        "accuracy_difference": compared.difference,
        "accuracy_difference_95": [compared.interval.low, compared.interval.high],
        "verdict": compared.verdict,
    }


def comparison_view(
    first: Entry, second: Entry, compared: SideBySide, *, examples: int
) -> RenderableType:
    outcomes = compared.outcomes
    texts = outcomes.labelled
    table = Table(box=None, pad_edge=False)
    for column in ("", first.model.tag, second.model.tag):
        table.add_column(column, overflow="fold")
    table.add_row("source", *(escape(str(e.metadata.get("source"))) for e in (first, second)))
    table.add_row("saved", *(f"{e.created:%Y-%m-%d %H:%M}" for e in (first, second)))
    table.add_row(
        "accuracy",
        _percent((outcomes.both_right + outcomes.only_v1_right) / texts),
        _percent((outcomes.both_right + outcomes.only_v2_right) / texts),
    )
    table.add_row("right alone", f"{outcomes.only_v1_right:,}", f"{outcomes.only_v2_right:,}")
    low, high = compared.interval.low, compared.interval.high
    summary = Text(
        f"{texts:,} texts: they agree on {compared.agreement:.2%}, probabilities differ by "
        f"{compared.mean_difference:.4f} on average.\nAccuracy of the second minus the first: "
        f"{compared.difference:+.2%} (95% interval {low:+.2%} to {high:+.2%}): {compared.verdict}."
    )
    parts: list[RenderableType] = [table, Text(), summary]
    if examples and compared.differing:
        parts += [Text(), _examples(compared, examples)]
    return Group(*parts)


def _examples(compared: SideBySide, count: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("label", "first", "second", "text"):
        table.add_column(column, overflow="fold")
    for labelled, first, second in compared.differing[:count]:
        table.add_row(
            labelled.label,
            *(f"{answer.sentiment} {answer.confidence:.2f}" for answer in (first, second)),
            escape(labelled.text[:200]),
        )
    return table


def _facts(facts: Mapping[str, object]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), escape(_plain(value)))
    return table


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "-"
    return str(value)


def _gates(metadata: Mapping[str, Any]) -> RenderableType:
    accuracy = metadata.get("gates", {}).get("accuracy")
    if isinstance(accuracy, Mapping):
        return Text(f"accuracy gate: {held_out_sentence(accuracy)}")
    return Text(f"accuracy gate: {accuracy or 'not evaluated'}")


def _engines(metadata: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("engine", "same label as torch", "mean |dp|", "accuracy", "torch", "texts"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for name, report in metadata.get("engines", {}).items():
        if report:
            table.add_row(
                name, _percent(report["agreement"]), f"{report['mean_difference']:.4f}",
                _percent(report["accuracy"]), _percent(report["reference_accuracy"]),
                f"{report['texts']:,}",
            )  # fmt: skip
        else:
            table.add_row(name, "reference")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
