"""Each client of another system gets right answers, and tells the reason of a refusal."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.prove.clients.environment import make_environment, newest_python, run_program
from tests.serving import ServedBento

TEXTS = ["A wonderful, moving film.", "Dull, endless and badly acted."]
LABELS = ["positive", "negative"]


@dataclass(frozen=True, slots=True)
class Client:
    """The packages of a client, and the newest Python 3 that they take."""

    packages: tuple[str, ...]
    newest_minor: int


CLIENTS = {
    "kserve": Client(("kserve==0.21.0",), 13),
    "mlserver": Client(("mlserver==1.7.1",), 12),
    # scipy: the client asks whether it is there in a way that fails where it is not.
    "mlflow": Client(("mlflow-skinny==3.17.2", "pandas==3.1.1", "scipy==1.17.1"), 13),
    # Version 3 has no Predictor.
    "sagemaker": Client(("sagemaker==2.257.7",), 12),
}
See = Callable[[str], dict[str, Any]]


@pytest.fixture
def see(
    unlimited: ServedBento, tmp_path: Path, record_property: Callable[[str, object], None]
) -> See:
    """What the client of a system sees of the service."""

    def see(name: str) -> dict[str, Any]:
        client = CLIENTS[name]
        python = make_environment(
            tmp_path / name, client.packages, newest_python(client.newest_minor)
        )
        version = subprocess.run([python, "--version"], check=True, capture_output=True, text=True)
        record_property(client.packages[0], f"with {version.stdout.strip()}")
        return run_program(python, name, unlimited.url)

    return see


@pytest.fixture
def scores(unlimited: ServedBento) -> list[float]:
    """The confidences of v2 for `TEXTS`, by our own contract."""
    with unlimited.client() as client:
        reply = client.post("/predict/batch", json={"texts": TEXTS, "version": "v2"}).json()
    assert [item["sentiment"] for item in reply["predictions"]] == LABELS
    return [item["confidence"] for item in reply["predictions"]]


def test_client_of_kserve(see: See, scores: list[float]) -> None:
    seen = see("kserve")
    assert (seen["live"], seen["ready"], seen["models"]) == (True, True, [True, True, False])
    for form in ("json", "binary"):
        assert seen[form]["label"] == LABELS
        assert seen[form]["score"] == pytest.approx(scores, rel=1e-6)
        assert len(seen[form]["prediction_id"]) == 2
    assert (seen["batch"], seen["after"]) == (100, LABELS)
    assert seen["timeout"] == "ReadTimeout"
    for case, status, reason in (
        ("blank", 422, "inputs.0.data.0: String should have at least 1 character"),
        ("many", 422, "inputs: List should have at most 100 items"),
        ("unknown", 404, "There is no such model; models are v1 and v2"),
    ):
        assert seen[case][0] == status
        assert reason in seen[case][1]


def test_codecs_and_command_of_mlserver(see: See, scores: list[float]) -> None:
    seen = see("mlserver")
    assert (seen["server"], seen["model"]) == ("sentiment", ["v2", ["text"]])
    assert seen["json"]["label"] == seen["codec"] == seen["command"] == LABELS
    assert seen["json"]["score"] == pytest.approx(scores, rel=1e-6)
    assert (seen["label"], seen["batch"]) == ({"label": LABELS}, 100)
    for case, reason in (
        ("blank", "inputs.0.data.0: String should have at least 1 character"),
        ("name", "inputs.0.name: Input should be 'text'"),
    ):
        assert seen[case][0] == 422
        assert reason in seen[case][1]


def test_scoring_client_of_mlflow(see: See, scores: list[float]) -> None:
    seen = see("mlflow")
    assert seen["frame"] == {"label": LABELS, "score": pytest.approx(scores)}
    assert all(labels == LABELS for labels in seen["labels"])
    assert seen["batch"] == 100
    for case, reason in (
        ("blank", "dataframe_split.data.0: String should have at least 1 character"),
        ("columns", "columns: none is named 'text'"),
        ("many", "at most 100 items"),
        ("params", "params.temperature: is not known; fields are version"),
    ):
        assert "error code 422" in seen[case]
        assert reason in seen[case]


def test_predictor_of_sagemaker(see: See, scores: list[float]) -> None:
    seen = see("sagemaker")
    assert [row["score"] for row in seen["inputs"]] == pytest.approx(scores)
    for case in ("inputs", "instances", "lines"):
        assert [row["label"] for row in seen[case]] == LABELS
    assert [row[0] for row in seen["csv"]] == LABELS
    assert seen["batch"] == 100
    assert "inputs.0: String should have at least 1 character" in seen["blank"]
