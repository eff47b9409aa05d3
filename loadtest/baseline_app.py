"""The design that most people deploy, to measure ours against: FastAPI around a pipeline.

One uvicorn process (uvloop, httptools); `transformers.pipeline` in float32 on torch's default
threads, called inside the async handler; one Redis GET and one SETEX for each text; one INSERT for
each prediction through an asyncpg pool, before the reply; a batch loops over its texts, a
comparison over the versions; analytics count the rows. The same weights, the same HTTP contract.
Nothing is slowed down on purpose, and where habits differ the faster one is taken: asyncpg instead
of an ORM, no access log, no metrics, no rate limits.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import asyncpg
import typer
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from transformers import pipeline

CACHE_TTL_SECONDS = 86_400
# A schema of its own, because the tables of ours are in the same database.
_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS baseline;
CREATE TABLE IF NOT EXISTS baseline.predictions (
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
INSERT INTO baseline.predictions
    (id, sentiment, confidence, latency_ms, cache_hit, model_version, text_sha256)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
# The row without a version is that of both.
_SUMMARY = """
SELECT model_version, count(*) AS predictions, avg(confidence) AS confidence,
    avg(latency_ms) AS latency_ms, 100 * avg(cache_hit::int)::float AS cache_hit_rate
FROM baseline.predictions WHERE created_at >= $1 GROUP BY GROUPING SETS (model_version, ())
"""
_DISTRIBUTION = """
SELECT sentiment, count(*) AS predictions FROM baseline.predictions
WHERE created_at >= $1 GROUP BY sentiment
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
        await self.pool.execute(_INSERT, *prediction.values(), digest)
        return prediction


def make_app(models: dict[Version, Path], database_url: str, redis_url: str) -> FastAPI:
    made: list[Predictor] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # top_k=None: the scores of all classes, as our reply is made of.
        classifiers = {
            version: pipeline(
                "text-classification", model=str(folder), tokenizer=str(folder), top_k=None
            )
            for version, folder in models.items()
        }
        async with (
            Redis.from_url(redis_url) as redis,
            asyncpg.create_pool(database_url) as pool,
        ):
            await pool.execute(_SCHEMA)
            made.append(Predictor(classifiers, redis, pool))
            yield

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
        by_version = {row["model_version"]: row for row in rows}
        total = by_version.pop(None)
        return {
            "total_predictions": total["predictions"],
            "by_version": {version: row["predictions"] for version, row in by_version.items()},
            "average_confidence": total["confidence"],
            "average_latency_ms": total["latency_ms"],
            "cache_hit_rate": total["cache_hit_rate"],
        }

    @app.get("/analytics/sentiment-distribution")
    async def sentiment_distribution(since: datetime) -> dict[str, Any]:
        rows = await made[0].pool.fetch(_DISTRIBUTION, since)
        counts = {row["sentiment"]: row["predictions"] for row in rows}
        total = sum(counts.values())
        return {
            "total_predictions": total,
            "distribution": {
                sentiment: {"count": count, "percent": 100 * count / total}
                for sentiment, count in counts.items()
            },
        }

    @app.get("/health")
    async def health() -> dict[str, Any]:
        await made[0].pool.fetchval("SELECT 1")
        await made[0].redis.ping()
        return {"status": "ok"}

    return app


def main(
    *,
    v1: Annotated[Path, typer.Option(help="folder of the checkpoint")],
    v2: Annotated[Path, typer.Option(help="folder of the checkpoint")],
    database_url: Annotated[str, typer.Option()],
    redis_url: Annotated[str, typer.Option()],
    port: Annotated[int, typer.Option()],
) -> None:
    app = make_app({"v1": v1, "v2": v2}, database_url, redis_url)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(main)
