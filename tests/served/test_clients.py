"""BentoML's own clients, one generated from the OpenAPI document, and the examples."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import bentoml
import httpx
import pytest

from core.paths import ROOT
from tests.database import scalar
from tests.serving import ServedBento
from tests.waiting import wait_until

BIN = Path(sys.executable).parent
# The generator's own `__exit__` and `__aexit__` pass on what httpx types more closely.
# The generator knows no CSV: as bytes, it sends any.
GENERATOR = """literal_enums: true
content_type_overrides:
  text/csv: application/octet-stream
  application/jsonlines: application/octet-stream
  application/vnd.apache.parquet: application/octet-stream
  application/x-ndjson: application/octet-stream
  text/tab-separated-values: application/octet-stream
"""
STRICT = """[mypy]
strict = true
[mypy-sentiment_client.client]
disable_error_code = arg-type
"""
CALLER = """
from time import sleep

from sentiment_client import AuthenticatedClient
from sentiment_client.api.analytics import analytics_summary
from sentiment_client.api.operations import health, metrics
from sentiment_client.api.predictions import feedback, predict, predict_ab_compare
from sentiment_client.models import (
    AbCompareReply, AbCompareRequest, FeedbackReply, FeedbackRequest, Health, PredictionReply,
    PredictRequest, ProblemDocument, Summary,
)


def main(url: str) -> None:
    with AuthenticatedClient(base_url=url, token="none") as client:
        asked = PredictRequest(text="A wonderful, moving film.", version="v2")
        reply = predict.sync(client=client, body=asked)
        assert isinstance(reply, PredictionReply)
        assert (reply.sentiment, reply.model_version) == ("positive", "v2")
        both = predict_ab_compare.sync(client=client, body=AbCompareRequest(text="Fine."))
        assert isinstance(both, AbCompareReply)
        assert set(both.predictions.additional_properties) == {"v1", "v2"}
        told = FeedbackRequest(prediction_id=reply.id, label="positive")
        for _ in range(300):  # 503 until it is stored
            answer = feedback.sync(client=client, body=told)
            if not isinstance(answer, ProblemDocument) or answer.status != 503:
                break
            sleep(0.2)
        assert isinstance(answer, FeedbackReply)
        problem = predict.sync(client=client, body=PredictRequest(text=" "))
        assert isinstance(problem, ProblemDocument)
        assert problem.status == 422
        totals = analytics_summary.sync(client=client, since="1h")
        assert isinstance(totals, Summary)
        assert totals.total_predictions > 0
        assert isinstance(health.sync(client=client), Health)
        assert "http_requests_total" in str(metrics.sync(client=client))


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
"""


def test_sync_client_calls_every_post_by_name(served: ServedBento) -> None:
    with bentoml.SyncHTTPClient(served.url) as client:
        prediction = client.predict(text="A wonderful, moving film.", version="v2")
        assert prediction["sentiment"] == "positive"
        batch = client.predict_batch(texts=["A wonderful, moving film."])
        assert batch["total"] == 1
        assert client.predict_ab(text="Fine.", subject="ann")["model_version"] in ("v1", "v2")
        assert set(client.predict_ab_compare(text="Fine.")["predictions"]) == {"v1", "v2"}
        stored = f"SELECT count(*) FROM predictions WHERE id = '{prediction['id']}'"
        wait_until(lambda: scalar(served.database_url, stored) == 1, 60)
        reply = client.feedback(prediction_id=prediction["id"], label="positive")
        assert reply["label"] == "positive"


def test_sync_client_calls_the_admin_posts_by_name(served: ServedBento) -> None:
    base = httpx.get(f"{served.url}/admin/rollout").json()["policy_version"]
    changes = {"ab_weights": {"v1": 90, "v2": 10}}
    with bentoml.SyncHTTPClient(served.url) as client:
        asked = {"base_version": base, "reason": "tried", "dry_run": True, "changes": changes}
        assert client.rollout(**asked)["dry_run"] is True
        reloaded = client.reload_model(version="v2", tag=None, reason="tried")
        assert reloaded["action"] == "reload"
        with pytest.raises(bentoml.exceptions.BentoMLException, match="is active now"):
            client.rollout(**asked)


async def test_async_client_predicts(served: ServedBento) -> None:
    async with bentoml.AsyncHTTPClient(served.url) as client:
        prediction = await client.predict(text="A wonderful, moving film.")
        assert prediction["model_version"] == "v1"


def test_client_generated_from_the_openapi_document_is_typed_and_works(
    served: ServedBento, tmp_path: Path
) -> None:
    document = httpx.get(f"{served.url}/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "client.yaml").write_text(GENERATOR)
    (tmp_path / "mypy.ini").write_text(STRICT)
    (tmp_path / "caller.py").write_text(CALLER)
    printed = run(
        tmp_path,
        *(BIN / "openapi-python-client", "generate", "--path", "openapi.json"),
        *("--config", "client.yaml", "--meta", "none", "--output-path", "sentiment_client"),
    )
    assert "warning" not in printed.lower()
    operations = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    made = {file.stem for file in (tmp_path / "sentiment_client" / "api").glob("*/*.py")}
    assert made - {"__init__"} == set(operations)
    run(tmp_path, sys.executable, "-m", "mypy", "--cache-dir", "mypy", "caller.py")
    run(tmp_path, sys.executable, "caller.py", served.url)


def test_example_of_bentoml_clients_runs(served: ServedBento, tmp_path: Path) -> None:
    printed = run(
        tmp_path, sys.executable, ROOT / "examples" / "bentoml_clients.py", url=served.url
    )
    assert "feedback: kept" in printed
    assert "positive  A delight." in printed


def test_example_of_an_ab_test_reaches_a_verdict(served: ServedBento, tmp_path: Path) -> None:
    labelled = [
        {"text": "What a joy of a film.", "label": "positive"},
        {"text": "A dull and endless film.", "label": "negative"},
        {"text": " ", "label": "negative"},
    ]
    file = tmp_path / "labelled.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in labelled))
    printed = run(tmp_path, sys.executable, ROOT / "examples" / "ab_test.py", file, url=served.url)
    assert "text: String should have at least 1 character" in printed
    assert re.search(r"^ +verdict  .*\bright\b", printed, re.MULTILINE)


def run(folder: Path, *command: str | Path, url: str = "") -> str:
    """What it prints."""
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "SENTIMENT_URL": url}
    # Nothing listens there: an example asks no proxy for a service of this machine.
    environment |= dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    ended = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr
