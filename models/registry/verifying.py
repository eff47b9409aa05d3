"""Whether a saved model is whole: its files, its revision, its engines and what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.checkpoint import WEIGHTS_FILE, file_digests, revision_of
from models.registry.catalogue import Entry
from runners.classifier import Classifier
from runners.engines.choice import EngineUnavailable, load_engine, runnable_engines
from runners.golden_set import check, read_golden_set


class Finding(NamedTuple):
    """One thing that was looked at, and what is wrong with it; None if nothing is."""

    what: str
    fault: str | None
    skipped: bool = False


def verify(entry: Entry) -> Iterator[Finding]:
    """Each as it is found; what cannot be known is skipped and said so.

    That is an engine that this machine cannot run, and what was not kept with older models.
    """
    yield _files(entry)
    model = entry.model
    if not (model.folder / WEIGHTS_FILE).is_file():
        yield Finding("revision", f"{WEIGHTS_FILE} is missing")
        return
    found = revision_of(model.folder)
    same = found == model.revision
    yield Finding("revision", None if same else f"the weights are {found}, not {model.revision}")
    try:
        golden_set = read_golden_set(model.folder)
    except ValueError as error:
        yield Finding("golden set", str(error))
        return
    if golden_set is None:
        yield Finding(
            "golden set", "none was kept; engines are asked for probabilities only", skipped=True
        )
    runnable = runnable_engines()
    for name in model.engines:
        if name not in runnable:
            yield Finding(name, "this CPU cannot run it", skipped=True)
            continue
        try:
            engine = load_engine(model, name, streams=1)
            answers_otherwise = check(Classifier(model, engine).infer, golden_set)
        except EngineUnavailable as error:
            yield Finding(name, str(error))
        else:
            yield Finding(name, answers_otherwise)


def _files(entry: Entry) -> Finding:
    kept = entry.metadata.get("files")
    if kept is None:
        return Finding("files", "saved before their digests were kept", skipped=True)
    found = file_digests(entry.model.folder)
    missing = sorted(kept.keys() - found.keys())
    if missing:
        return Finding("files", f"missing: {', '.join(missing)}")
    changed = sorted(name for name in kept if kept[name] != found[name])
    return Finding(
        "files", f"changed since it was saved: {', '.join(changed)}" if changed else None
    )
