"""The error for a missing model helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from bentoml.exceptions import NotFound

from runners.model_store import find_model


def test_missing_model_raises_an_error_that_says_how_to_save_it(model_store: Path) -> None:
    with pytest.raises(NotFound, match=r"sentiment save-models"):
        find_model("sentiment-distilbert-v2:latest")
