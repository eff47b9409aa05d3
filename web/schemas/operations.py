"""Wire models for operators: health, and the state of the cache, the log and the limits."""

from __future__ import annotations

from pydantic import BaseModel, Field

from core.types import Sentiment, SinkName, Version


class RunnerHealth(BaseModel):
    ready: bool
    revision: str | None
    engine: str | None
    tag: str | None = Field(None, description="in the BentoML model store")
    loading: str | None = Field(None, description="the model that is being loaded to replace it")
    load_error: str | None = Field(None, description="why the last desired model was not loaded")
    observed_generation: int | None = Field(
        None, description="the latest rollout policy whose model every host has loaded or refused"
    )


class ServedModel(BaseModel):
    """A version as its runner described it last; null: it has never answered, or does not say."""

    ready: bool
    labels: list[Sentiment] | None
    max_tokens: int | None = Field(description="the window: tokens past it are not read")
    revision: str | None = Field(description="hash of the weights")
    tag: str | None = Field(description="in the BentoML model store")
    engine: str | None
    licence: str | None = Field(description="of the model, as noted where it was saved")


class ServedModels(BaseModel):
    models: dict[Version, ServedModel]


class RolloutHealth(BaseModel):
    policy_version: int = Field(description="0: the policy that the settings give")
    frozen: bool = Field(
        description="PostgreSQL is away, or the newest policy cannot be read: the last one holds"
    )


class Health(BaseModel):
    status: str = Field(
        description="ok; degraded: predictions are served, a part is down or a model was refused; "
        "unavailable"
    )
    model_loaded: bool
    log_writable: bool = Field(
        description="false: no prediction can be recorded, so none is answered"
    )
    log_rejects: bool = Field(
        description="true: lines of the log were set aside in the last hour; `sentiment log retry`"
    )
    log_overdue: bool = Field(
        description="true: predictions have waited on local disk for more than ten seconds"
    )
    database_connected: bool
    redis_connected: bool
    versions: dict[Version, RunnerHealth]
    rollout: RolloutHealth


class CacheStats(BaseModel):
    hits: int
    misses: int
    hit_rate: float = Field(ge=0, le=100, description="percent of lookups that hit")
    cache_size: int | None = Field(description="cached answers; null while Redis is down")


class SinkStats(BaseModel):
    delivered: int = Field(description="predictions that it has taken since the start")
    waiting: int = Field(description="stored predictions that it does not have yet")
    overdue_seconds: float = Field(description="time since it should have taken the oldest of them")
    lost: int = Field(
        description="predictions that it never gets: too many waited for it, or it refused them"
    )
    gone: int = Field(description="predictions that were erased, or expired, before their turn")


class LogStats(BaseModel):
    recorded: int = Field(
        description="predictions written to local disk, of all workers since the start; never "
        "fewer than `stored`"
    )
    stored: int = Field(
        description="predictions that reached PostgreSQL, each once, also those that an earlier "
        "start had recorded"
    )
    repeated: int = Field(
        description="predictions that PostgreSQL had when they reached it: one that shadow traffic "
        "compared is recorded again with its comparison, and so is that of a repeated request"
    )
    dropped: int
    rejected: int = Field(
        description="lines set aside: PostgreSQL refused them or they could not be read"
    )
    waiting_bytes: int = Field(description="bytes on local disk that wait for PostgreSQL")
    rejected_bytes: int = Field(description="bytes of the lines that are set aside")
    max_bytes: int = Field(description="the most bytes that may wait or be set aside")
    oldest_seconds: float = Field(description="age of the oldest bytes that wait")
    sinks: dict[SinkName, SinkStats] = Field(
        description="the sinks that stored predictions are handed on to, by name"
    )


class RateLimitStatus(BaseModel):
    limit: int | None = Field(
        description="requests a window, for `batch` texts; null if the limit is off"
    )
    remaining: int | None
    reset_in_seconds: float | None
