"""A checkpoint that cannot be served is refused in one line, and leaves no trace in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.registry.saving import Engines, save_checkpoint
from models.registry.sources import Fetched
from runners.model_store import InvalidCheckpoint
from scripts import models
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint
from tests.unit.models.refused_configurations import REFUSED_CONFIGURATIONS
from tests.unit.models.refused_tokenizers import REFUSED_TOKENIZERS
from tests.unit.models.refused_weights import REFUSED_WEIGHTS
from tests.unit.models.spoiling import (
    WEIGHTS,
    Spoil,
    tokenizer,
)

pytestmark = pytest.mark.usefixtures("torch_imported")

REFUSED = {**REFUSED_CONFIGURATIONS, **REFUSED_WEIGHTS, **REFUSED_TOKENIZERS}


@pytest.mark.parametrize(("spoil", "says"), REFUSED.values(), ids=REFUSED)
def test_checkpoint_that_cannot_be_served_is_refused_in_one_line(
    model_store: Path, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    spoil(folder)
    done = CliRunner().invoke(
        models.app, ["import", str(folder), "--as", "v2", "--engines", "reference"]
    )
    assert done.exit_code == 1, done.output
    # The progress bar leaves an empty line where the output is no terminal.
    [line] = [line for line in done.stderr.split("\n") if line]
    assert line.startswith(f"{folder} cannot be imported: ")
    assert says in line
    assert "Traceback" not in done.output
    assert list(model_store.iterdir()) == []


def test_model_that_was_saved_stays_when_its_successor_is_refused(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    saved = import_checkpoint(folder, "v1", {})
    before = {path: path.read_bytes() for path in saved.folder.iterdir()}
    tokenizer(post_processor=None)(folder)
    with pytest.raises(InvalidCheckpoint):
        import_checkpoint(folder, "v1", {})
    assert {path: path.read_bytes() for path in saved.folder.iterdir()} == before


def test_checkpoint_of_a_passing_folder_is_named_by_its_origin(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    (folder / WEIGHTS).unlink()
    with pytest.raises(InvalidCheckpoint, match=r"^models:/mine/1 cannot be imported: it has no"):
        save_checkpoint(
            "v1", "models:/mine/1", lambda _: Fetched(folder, {}),
            engines=Engines.reference, texts=None,
        )  # fmt: skip
