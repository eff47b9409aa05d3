"""Deletes saved models that nothing needs, and says why the others stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml

from core.command_output import CommandFailed
from models.registry.catalogue import Entry

# Tag to the reasons for which it has to stay.
InUse = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A model of the store, and the reasons for which it stays; with none it goes."""

    tag: str
    size_bytes: int
    kept_because: tuple[str, ...] = ()


def judge_named(tags: Sequence[str], entries: Sequence[Entry], in_use: InUse) -> list[Verdict]:
    """The verdicts on models that the user names.

    Raises:
        CommandFailed: a tag is not exactly that of a sentiment model of this store.
    """
    known = {entry.model.tag: entry for entry in entries}
    for tag in tags:
        if tag not in known:
            raise CommandFailed(
                f"{tag} is not exactly the tag of a sentiment model; `sentiment models list` shows "
                "them. Nothing is deleted"
            )
    return [_verdict(known[tag], in_use) for tag in dict.fromkeys(tags)]


def judge_all(entries: Sequence[Entry], in_use: InUse, *, keep: int) -> list[Verdict]:
    """The verdicts on every sentiment model; the newest `keep` of each version stay.

    `entries` are ordered by age, the newest first.
    """
    seen: dict[str, int] = {}
    verdicts = []
    for entry in entries:
        name = entry.model.tag.partition(":")[0]
        seen[name] = seen.get(name, 0) + 1
        newest = [f"one of the newest {keep}"] if seen[name] <= keep else []
        verdicts.append(_verdict(entry, in_use, newest))
    return verdicts


def _verdict(entry: Entry, in_use: InUse, also: Sequence[str] = ()) -> Verdict:
    reasons = (*in_use.get(entry.model.tag, ()), *also)
    return Verdict(entry.model.tag, entry.size_bytes, reasons)


def remove(verdicts: Sequence[Verdict]) -> list[str]:
    """Delete the models of verdicts without a reason to stay; returns their tags."""
    going = [verdict.tag for verdict in verdicts if not verdict.kept_because]
    for tag in going:
        delete(tag)
    return going


def removal_document(
    verdicts: Sequence[Verdict], *, deleted: Sequence[str], dry_run: bool
) -> dict[str, Any]:
    """What a removal did, or with `dry_run` would do, as JSON values."""
    going = [verdict for verdict in verdicts if not verdict.kept_because]
    return {
        "dry_run": dry_run,
        "deleted": list(deleted),
        "to_delete": [verdict.tag for verdict in going],
        "freed_bytes": sum(item.size_bytes for item in going if item.tag in deleted),
        "kept": [
            {"tag": verdict.tag, "reasons": verdict.kept_because}
            for verdict in verdicts
            if verdict.kept_because
        ],
    }


def delete(tag: str) -> None:
    """Delete a model from the store; `latest` of its name goes on meaning the same model.

    BentoML would point `latest` at the model with the newest time, which another program or
    `sentiment models refresh` may have made of an old one.

    Raises:
        bentoml.exceptions.NotFound: it is not in the store (any more).
        OSError: the store cannot be written.
    """
    folder = Path(bentoml.models.get(tag).path)
    latest = folder.parent / "latest"
    newest = latest.read_text(encoding="utf-8").strip() if latest.is_file() else None
    bentoml.models.delete(tag)
    if newest is not None and (folder.parent / newest).is_dir():
        latest.write_text(newest, encoding="utf-8")
