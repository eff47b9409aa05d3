"""The design that most people deploy, to measure ours against: FastAPI around a pipeline.

One uvicorn process (uvloop, httptools); `transformers.pipeline` in float32 on torch's default
threads, called inside the async handler; one Redis GET and one SETEX for each text; one INSERT for
each prediction through an asyncpg pool, before the reply; a batch loops over its texts, a
comparison over the versions; analytics count the rows. The same weights, the same HTTP contract.
Nothing is slowed down on purpose, and where habits differ the faster one is taken: asyncpg instead
of an ORM, no access log, no metrics, no rate limits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import asyncpg
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from transformers import pipeline

CACHE_TTL_SECONDS = 86_400
_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    id uuid PRIMARY KEY,
    text_sha256 text NOT NULL,
    sentiment text NOT NULL,
    confidence double precision NOT NULL,
    latency_ms double precision NOT NULL,
    cache_hit boolean NOT NULL,
    model_version text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)
"""
_INSERT = """
INSERT INTO predictions
    (id, text_sha256, sentiment, confidence, latency_ms, cache_hit, model_version)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_SUMMARY = """
SELECT model_version, count(*) AS predictions, avg(confidence) AS confidence,
    avg(latency_ms) AS latency_ms, avg(cache_hit::int) AS hits
FROM predictions WHERE created_at >= $1 GROUP BY model_version
"""
_DISTRIBUTION = """
SELECT sentiment, count(*) AS predictions FROM predictions WHERE created_at >= $1 GROUP BY sentiment
"""

Version = Literal["v1", "v2"]


class PredictRequest(BaseModel):
    text: str = Field(min_length=1, max_length=5_000)
    version: Version = "v1"


class BatchRequest(BaseModel):
    texts: list[str] = Field(min_length=1, max_length=100)
    version: Version = "v1"


class CompareRequest(BaseModel):
    text: str = Field(min_length=1, max_length=5_000)


@dataclass(frozen=True)
class Addresses:
    """Where the weights, PostgreSQL and Redis are."""

    models: dict[Version, Path]
    database_url: str
    redis_url: str


class Predictor:
    """Looks up, computes, stores and records one text."""

    def __init__(self, classifiers: dict[Version, Any], redis: Redis, pool: asyncpg.Pool) -> None:
        self._classifiers = classifiers
        self.redis = redis
        self.pool = pool

    async def predict(self, text: str, version: Version) -> dict[str, Any]:
        started = time.perf_counter()
        digest = hashlib.sha256(text.encode()).hexdigest()
        key = f"prediction:{version}:{digest}"
        cached = await self.redis.get(key)
        if cached is not None:
            scores = json.loads(cached)
        else:
            [results] = self._classifiers[version]([text], truncation=True)
            scores = {result["label"].lower(): result["score"] for result in results}
            await self.redis.setex(key, CACHE_TTL_SECONDS, json.dumps(scores))
        sentiment = max(scores, key=scores.__getitem__)
        prediction = {
            "id": str(uuid4()),
            "sentiment": sentiment,
            "confidence": scores[sentiment],
            "latency_ms": 1_000 * (time.perf_counter() - started),
            "cache_hit": cached is not None,
            "model_version": version,
        }
        await self.pool.execute(
            _INSERT,
            prediction["id"],
            digest,
            sentiment,
            prediction["confidence"],
            prediction["latency_ms"],
            prediction["cache_hit"],
            version,
        )
        return prediction


def make_app(addresses: Addresses) -> FastAPI:
    made: list[Predictor] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # top_k=None: the scores of all classes, as our reply is made of.
        classifiers = {
            version: pipeline(
                "text-classification", model=str(folder), tokenizer=str(folder), top_k=None
            )
            for version, folder in addresses.models.items()
        }
        redis = Redis.from_url(addresses.redis_url)
        async with asyncpg.create_pool(addresses.database_url) as pool:
            await pool.execute(_SCHEMA)
            made.append(Predictor(classifiers, redis, pool))
            yield
        await redis.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(request: PredictRequest) -> dict[str, Any]:
        return await made[0].predict(request.text, request.version)

    @app.post("/predict/batch")
    async def predict_batch(request: BatchRequest) -> dict[str, Any]:
        predictions = [await made[0].predict(text, request.version) for text in request.texts]
        return {"predictions": predictions, "total": len(predictions)}

    @app.post("/predict/ab-compare")
    async def predict_ab_compare(request: CompareRequest) -> dict[str, Any]:
        v1 = await made[0].predict(request.text, "v1")
        v2 = await made[0].predict(request.text, "v2")
        return {
            "id": str(uuid4()),
            "predictions": {"v1": v1, "v2": v2},
            "agreement": v1["sentiment"] == v2["sentiment"],
            "confidence_delta": v2["confidence"] - v1["confidence"],
        }

    @app.get("/analytics/summary")
    async def summary(since: datetime) -> dict[str, Any]:
        rows = await made[0].pool.fetch(_SUMMARY, since)
        total = sum(row["predictions"] for row in rows)

        def average(column: str) -> float | None:
            weighted = sum(row["predictions"] * float(row[column]) for row in rows)
            return weighted / total if total else None

        hit_share = average("hits")
        return {
            "total_predictions": total,
            "by_version": {row["model_version"]: row["predictions"] for row in rows},
            "average_confidence": average("confidence"),
            "average_latency_ms": average("latency_ms"),
            "cache_hit_rate": None if hit_share is None else 100 * hit_share,
        }

    @app.get("/analytics/sentiment-distribution")
    async def sentiment_distribution(since: datetime) -> dict[str, Any]:
        rows = await made[0].pool.fetch(_DISTRIBUTION, since)
        total = sum(row["predictions"] for row in rows)
        return {
            "total_predictions": total,
            "distribution": {
                row["sentiment"]: {
                    "count": row["predictions"],
                    "percent": 100 * row["predictions"] / total,
                }
                for row in rows
            },
        }

    @app.get("/health")
    async def health() -> dict[str, Any]:
        await made[0].pool.fetchval("SELECT 1")
        await made[0].redis.ping()
        return {"status": "ok"}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--v1", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--v2", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    app = make_app(Addresses({"v1": given.v1, "v2": given.v2}, given.database_url, given.redis_url))
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
