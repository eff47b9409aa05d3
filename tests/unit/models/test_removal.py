"""Which saved models a removal deletes, and why the others stay."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import bentoml
import pytest

from core.command_output import CommandFailed
from models.registry.catalogue import Entry
from models.registry.removal import delete, judge_all, judge_named, removal_document, remove
from runners.model_store import SavedModel
from tests.store import model_store_at


def saved(tag: str) -> Entry:
    model = SavedModel(tag, Path("/none"), "r", ("negative", "positive"), 512, 0, ())
    return Entry(model, datetime.now(UTC), 1_000, {}, ())


# The newest first.
STORE = [saved(tag) for tag in ("m-v2:4", "m-v1:3", "m-v2:2", "m-v2:1", "m-v1:0")]
IN_USE = {"m-v2:1": ["it serves as v2", "MODEL_V2 is m-v2:1"]}


def kept(keep: int) -> list[str]:
    return [v.tag for v in judge_all(STORE, IN_USE, keep=keep) if v.kept_because]


@pytest.mark.parametrize(
    ("keep", "tags"),
    [
        (0, ["m-v2:1"]),
        (1, ["m-v2:4", "m-v1:3", "m-v2:1"]),
        (2, ["m-v2:4", "m-v1:3", "m-v2:2", "m-v2:1", "m-v1:0"]),
    ],
)
def test_pruning_keeps_the_newest_of_each_version_and_what_is_in_use(
    keep: int, tags: list[str]
) -> None:
    assert kept(keep) == tags


def test_document_says_what_went_what_stayed_and_how_much_it_freed() -> None:
    verdicts = judge_all(STORE, IN_USE, keep=1)
    document = removal_document(verdicts, deleted=["m-v2:2", "m-v1:0"], dry_run=False)
    assert (document["deleted"], document["freed_bytes"]) == (["m-v2:2", "m-v1:0"], 2_000)
    assert document["kept"][2] == {"tag": "m-v2:1", "reasons": tuple(IN_USE["m-v2:1"])}
    dry = removal_document(verdicts, deleted=[], dry_run=True)
    assert (dry["to_delete"], dry["freed_bytes"]) == (["m-v2:2", "m-v1:0"], 0)


@pytest.mark.parametrize("tag", ["m-v2", "m-v2:latest", "other:1", "m-v2:", "../m-v2:1"])
def test_named_models_have_to_be_named_exactly(tag: str) -> None:
    with pytest.raises(CommandFailed, match="Nothing is deleted"):
        judge_named(["m-v2:4", tag], STORE, {})


def test_named_model_that_is_in_use_stays() -> None:
    verdicts = judge_named(["m-v2:1", "m-v2:2", "m-v2:2"], STORE, IN_USE)
    assert [(verdict.tag, bool(verdict.kept_because)) for verdict in verdicts] == [
        ("m-v2:1", True), ("m-v2:2", False),
    ]  # fmt: skip


def test_latest_goes_on_meaning_the_same_model(tmp_path: Path) -> None:
    with model_store_at(tmp_path):
        for version in ("a", "b", "c"):
            with bentoml.models.create(f"m-v1:{version}"):
                pass
        latest = tmp_path / "m-v1" / "latest"
        latest.write_text("a", encoding="utf-8")
        assert remove(judge_named(["m-v1:b"], [saved("m-v1:b")], {})) == ["m-v1:b"]
        assert bentoml.models.get("m-v1:latest").tag.version == "a"
        delete("m-v1:a")
        assert bentoml.models.get("m-v1:latest").tag.version == "c"
        delete("m-v1:c")
        assert not (tmp_path / "m-v1").exists()
