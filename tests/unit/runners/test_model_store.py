"""The error for a missing model helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from bentoml.exceptions import NotFound

from runners.model_store import find_model


def test_missing_model_raises_an_error_that_says_how_to_save_it(model_store: Path) -> None:
    with pytest.raises(NotFound, match=r"sentiment save-models"):
        find_model("sentiment-distilbert-v2:latest")


@pytest.mark.parametrize("tag", ["../x", "model-:1", "model:1.", f"model:{'1' * 64}", ""])
def test_tag_that_no_model_can_have_is_named(tag: str, model_store: Path) -> None:
    with pytest.raises(NotFound, match=f"'{tag}' is no tag of a model"):
        find_model(tag)
