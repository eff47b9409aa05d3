"""Verifies a saved model: its files, its revision, and the answers of its engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from models.files import revision_of
from models.registry.catalogue import Entry
from runners.classifier import Classifier
from runners.engines.choice import EngineUnavailable, load_engine, runnable_engines
from runners.engines.weights import WEIGHTS_FILE
from runners.golden_set import check, read_golden_set
from runners.integrity import differences


class Finding(NamedTuple):
    """The result of one check; `problem` is None if there is none, or says why it was skipped."""

    subject: str
    problem: str | None
    skipped: bool = False


def verify(entry: Entry) -> Iterator[Finding]:
    """Yield the result of each check.

    Skipped are engines that this machine cannot run, and checks whose data older releases did not
    save.
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
            "golden set",
            "an older release saved none; only probabilities are checked",
            skipped=True,
        )
    runnable = runnable_engines()
    for name in model.engines:
        if name not in runnable:
            yield Finding(name, "this CPU cannot run it", skipped=True)
            continue
        try:
            engine = load_engine(model, name, streams=1)
        except EngineUnavailable as error:
            yield Finding(name, str(error))
        else:
            yield Finding(name, check(Classifier(model, engine).infer, golden_set))


def _files(entry: Entry) -> Finding:
    saved = entry.metadata.get("files")
    if saved is None:
        return Finding("files", "an older release saved no digests", skipped=True)
    return Finding("files", differences(entry.model.folder, saved))
