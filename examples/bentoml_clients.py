"""BentoML's own clients: every POST of the service, one by one, then many at once."""

from __future__ import annotations

import asyncio
import os

import bentoml

# A proxy of HTTP_PROXY cannot know the services of this machine.
os.environ.setdefault("NO_PROXY", "localhost,127.0.0.1,::1")
URL = os.environ.get("SENTIMENT_URL", "http://127.0.0.1:3000")
API_KEY = os.environ.get("SENTIMENT_API_KEY")


def one_by_one() -> None:
    with bentoml.SyncHTTPClient(URL, token=API_KEY) as client:
        prediction = client.predict(text="A warm, funny, engaging film.", version="v2")
        print("predict:", prediction["sentiment"], prediction["confidence"])

        batch = client.predict_batch(texts=["Great value.", "It broke in a week."])
        print("predict_batch:", [prediction["sentiment"] for prediction in batch["predictions"]])

        assigned = client.predict_ab(text="Great value.", subject="user-17")
        print("predict_ab:", assigned["model_version"], assigned["sentiment"])

        both = client.predict_ab_compare(text="Does exactly what it says on the box.")
        print("predict_ab_compare: they agree" if both["agreement"] else "they do not agree")

        client.feedback(prediction_id=prediction["id"], label="positive")
        print("feedback: kept")


async def many_at_once(texts: list[str]) -> None:
    """The service puts what comes together into batches by itself."""
    async with bentoml.AsyncHTTPClient(URL, token=API_KEY) as client:
        predictions = await asyncio.gather(*(client.predict(text=text) for text in texts))
    for text, prediction in zip(texts, predictions, strict=True):
        print(f"{prediction['sentiment']:>8}  {text}")


if __name__ == "__main__":
    one_by_one()
    asyncio.run(many_at_once(["A delight.", "A bore.", "Great value.", "It broke in a week."]))
