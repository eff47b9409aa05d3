"""BentoML's own clients work against the service."""

from __future__ import annotations

import bentoml

from tests.serving import ServedBento


def test_sync_client_calls_the_posts_by_name(served: ServedBento) -> None:
    with bentoml.SyncHTTPClient(served.url) as client:
        prediction = client.predict(text="A wonderful, moving film.", version="v2")
        assert prediction["sentiment"] == "positive"
        batch = client.predict_batch(texts=["A wonderful, moving film."])
        assert batch["total"] == 1
        assert client.predict_ab(text="Fine.", subject="ann")["model_version"] in ("v1", "v2")
        assert set(client.predict_ab_compare(text="Fine.")["predictions"]) == {"v1", "v2"}
        reply = client.feedback(prediction_id=prediction["id"], label="positive")
        assert reply["label"] == "positive"


async def test_async_client_predicts(served: ServedBento) -> None:
    async with bentoml.AsyncHTTPClient(served.url) as client:
        prediction = await client.predict(text="A wonderful, moving film.")
        assert prediction["model_version"] == "v1"
