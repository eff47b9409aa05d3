"""A start saves the starter models that are missing, and none in the place of another's choice."""

from __future__ import annotations

from pathlib import Path

import bentoml

from serving.embedded.starters import save_missing_models
from tests.store import model_store_at
from tests.unit.core.settings_of import settings


def test_no_starter_is_saved_for_a_tag_that_somebody_chose(tmp_path: Path) -> None:
    chosen = settings(
        model_v1="sentiment-distilbert-v1:absent", model_v2="sentiment-distilbert-v1:other"
    )
    with model_store_at(tmp_path):
        save_missing_models(chosen)
        assert bentoml.models.list() == []
