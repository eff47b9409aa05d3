"""The only reader of the environment: every setting, its type, its default and its meaning."""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.api_keys import ApiKey, parse_api_keys
from core.paths import ROOT
from core.types import EngineName, LogFormat, Version
from core.urls import asyncpg_url, check_database_url, check_redis_url

if TYPE_CHECKING:
    from sqlalchemy import URL


def _lower_off(value: object) -> object:
    return "off" if isinstance(value, str) and value.strip().lower() == "off" else value


def _check_rate_limit(value: str) -> str:
    if value != "off":
        try:
            [_] = parse_many(value)  # of several, only one would be kept
        except ValueError as error:
            raise ValueError("write it as 100/minute, or off") from error
    return value


def _parse_origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    origins = tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin != f"{parts.scheme}://{parts.netloc}" or parts.scheme not in ("http", "https"):
            raise ValueError("write origins such as https://shop.example, with commas between them")
    return origins


def _check_database_url(value: SecretStr) -> SecretStr:
    check_database_url(value.get_secret_value())
    return value


def _check_redis_url(value: SecretStr) -> SecretStr:
    check_redis_url(value.get_secret_value())
    return value


def _check_api_keys(value: SecretStr) -> SecretStr:
    parse_api_keys(value.get_secret_value())
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


RateLimit = Annotated[str, NoDecode, BeforeValidator(_lower_off), AfterValidator(_check_rate_limit)]


CorsOrigins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_origins)]


class Settings(BaseSettings):
    """Read once from the environment and the `.env` beside service.py; frozen afterwards.

    Field descriptions are the source of `.env.example` and of the README's table (a test compares).
    """

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # a URL that cannot be read may still hold a password
    )

    database_url: Annotated[
        SecretStr | None, AfterValidator(lambda value: value and _check_database_url(value))
    ] = Field(None, description="PostgreSQL; unset: `make serve` starts a private one")
    redis_url: Annotated[
        SecretStr | None, AfterValidator(lambda value: value and _check_redis_url(value))
    ] = Field(None, description="Redis or Valkey; unset: `make serve` starts a private one")
    # Relative to service.py, so that every command finds the same data wherever it is typed.
    data_folder: Annotated[Path, AfterValidator(lambda folder: ROOT / folder)] = Field(
        Path(".data"),
        validate_default=True,
        description="for the log on its way to PostgreSQL, and the private PostgreSQL and Redis",
    )
    host: str = Field(
        "127.0.0.1", description="address to listen on; 0.0.0.0: every one of this machine's"
    )
    port: int = Field(3000, ge=1, le=65535, description="port to listen on")
    api_workers: int = Field(1, ge=1, le=64, description="API processes")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR"
    )

    log_format: LogFormat = Field(
        "auto", description="json: an object a line; text; auto: text on a terminal, else json"
    )

    api_keys: Annotated[
        SecretStr | None,
        AfterValidator(lambda value: value and _check_api_keys(value)),
    ] = Field(
        None,
        description="who may ask for what, as `python -m scripts.make_key` writes it; unset: all",
    )
    allow_anonymous: bool = Field(
        False, description="1 serves without API keys to other machines too"
    )
    runner_key: SecretStr | None = Field(
        None,
        description="what the API shows to runners on other machines; the same on all of them",
    )
    cors_origins: CorsOrigins = Field(
        (), description="websites whose scripts may ask, such as https://shop.example; unset: none"
    )
    rate_limit_predict: RateLimit = Field(
        "100/minute",
        description="per client: /predict, /predict/ab, /predict/ab-compare, /feedback",
    )
    rate_limit_batch: RateLimit = Field(
        "20/minute", description="per client: /predict/batch, in batches of MAX_BATCH_TEXTS"
    )
    rate_limit_analytics: RateLimit = Field("60/minute", description="per client: /analytics/...")

    model_v1: str = Field(
        "sentiment-distilbert-v1:latest", description="tag of v1 in the BentoML model store"
    )
    model_v2: str = Field(
        "sentiment-distilbert-v2:latest", description="tag of v2 in the BentoML model store"
    )
    default_version: Version = Field(
        "v1",
        description="answers a /predict without a version, until a rollout says otherwise",
    )
    ab_v2_percent: float = Field(
        50.0, ge=0, le=100, description="share of /predict/ab subjects that v2 answers, likewise"
    )
    ab_salt: str = Field(
        "ab-1", description="change it to deal the subjects of /predict/ab out anew"
    )

    max_batch_texts: int = Field(100, ge=1, le=10_000, description="texts in one /predict/batch")
    max_body_bytes: int = Field(
        4_194_304, ge=65_536, description="a larger request body is refused with 413"
    )
    body_timeout_seconds: float = Field(
        10.0,
        gt=0,
        description="request headers, or a body, that take longer to come are refused with 408",
    )
    keep_alive_seconds: int = Field(
        75,
        gt=0,
        description="an idle connection is kept for so long; longer than a load balancer in front",
    )
    request_timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="longest time for an answer, else 504; X-Request-Timeout-Ms asks for less",
    )
    drain_seconds: float = Field(
        1.0,
        ge=0,
        description="after SIGTERM it goes on for so long, not ready, so that clients go elsewhere",
    )
    stop_seconds: float = Field(
        30.0, gt=0, description="a worker that has not stopped by then is killed; the log is kept"
    )
    engine: Literal["auto", EngineName] = Field(
        "auto", description="what computes; auto: the fastest that is saved and that this CPU runs"
    )
    runner_threads: int = Field(
        0, ge=0, description="batches a runner computes at once, one a core; 0: one for each CPU"
    )
    max_queue_seconds: float = Field(
        1.0, gt=0, description="what would wait longer for a model is refused (503)"
    )
    max_bulk_queue_seconds: float = Field(
        5.0, gt=0, description="the same for large batches, which have a queue of their own"
    )
    max_queued_texts: int = Field(
        10_000, ge=1, description="texts that may wait for a model in either queue"
    )
    max_queued_tokens: int = Field(
        500_000, ge=1, description="tokens that may wait for a model in either queue, estimated"
    )
    mkldnn_enable: bool = Field(
        True, description="0 turns oneDNN off, for CPUs where it is slow or broken (some ARM)"
    )

    cache_ttl_seconds: int = Field(86_400, ge=1, description="how long an answer stays cached")
    local_cache_entries: int = Field(
        2_000, ge=0, description="answers that each API process keeps itself, before Redis; 0: none"
    )
    redis_timeout_seconds: float = Field(
        0.25, gt=0, description="longest wait for one Redis command"
    )
    redis_max_memory: str = Field(
        "256mb", description="memory of the private Redis; the least recently used keys go first"
    )

    otel_exporter_otlp_endpoint: str | None = Field(
        None, description="a collector of traces, as http://127.0.0.1:4318; unset: no traces"
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        None, description="the same, with its whole path"
    )
    otel_service_name: str = Field(
        "sentiment", description="what traces call it; its runners are NAME-runner-v1 and -v2"
    )
    otel_sdk_disabled: bool = Field(False, description="1: no traces, wherever to")

    text_storage: Literal["full", "hash", "none"] = Field(
        "hash", description="what the prediction log keeps of a text: full, its SHA-256 only, none"
    )
    log_retention_days: int = Field(
        90, ge=0, description="whole days that the prediction log and analytics go back; 0: forever"
    )
    log_durability: Literal["fsync", "page_cache"] = Field(
        "fsync",
        description="a prediction is on disk before its reply leaves: fsync, it survives a power "
        "cut; page_cache, it survives the end of every process",
    )
    log_max_bytes: int = Field(
        1 << 30,
        ge=64 << 20,
        description="what may wait on disk for PostgreSQL, some 400 bytes a prediction",
    )
    log_when_full: Literal["refuse", "drop_oldest"] = Field(
        "refuse",
        description="when that is full, or its disk: refuse (503), or drop_oldest and count them",
    )
    log_flush_seconds: float = Field(
        0.1, gt=0, description="how often what was written to disk is moved on to PostgreSQL"
    )
    database_pool_size: int = Field(
        5, ge=2, description="PostgreSQL connections of each API process"
    )
    database_timeout_seconds: float = Field(
        5.0, gt=0, description="longest wait for a connection or an analytics query"
    )

    def sqlalchemy_url(self) -> URL:
        """`DATABASE_URL` for asyncpg.

        Raises:
            MissingSetting: `DATABASE_URL` is unset.
            sqlalchemy.exc.ArgumentError: it cannot be read.
        """
        if self.database_url is None:
            raise MissingSetting(
                "DATABASE_URL is not set. `make serve` starts a private PostgreSQL; for "
                "`bentoml serve` alone, set it to postgresql://user:password@host/db"
            )
        return asyncpg_url(self.database_url.get_secret_value())

    def spool_folder(self) -> Path:
        """Where predictions wait on disk for PostgreSQL."""
        return self.data_folder / "spool"

    def redis_connection_url(self) -> str:
        """`REDIS_URL`, as text.

        Raises:
            MissingSetting: `REDIS_URL` is unset.
        """
        if self.redis_url is None:
            raise MissingSetting(
                "REDIS_URL is not set. `make serve` starts a private Redis; for "
                "`bentoml serve` alone, set it to redis://host:6379/0"
            )
        return self.redis_url.get_secret_value()

    @property
    def is_traced(self) -> bool:
        """Whether there is a collector of traces. The SDK reads the other variables itself."""
        endpoint = self.otel_exporter_otlp_traces_endpoint or self.otel_exporter_otlp_endpoint
        return bool(endpoint) and not self.otel_sdk_disabled

    def known_keys(self) -> tuple[ApiKey, ...]:
        return parse_api_keys(self.api_keys.get_secret_value()) if self.api_keys else ()

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches it may ask for everything."""
        return not self.known_keys()

    def check_open(self) -> None:
        """Raises MissingSetting: other machines could ask for everything, and nobody said so."""
        if self.is_open and not self.allow_anonymous and not _is_loopback(self.host):
            raise MissingSetting(
                f"HOST={self.host} lets other machines in, and no API_KEYS say whom. Make one with "
                "`python -m scripts.make_key NAME`, or say ALLOW_ANONYMOUS=1"
            )

    def model_tag(self, version: Version) -> str:
        return {"v1": self.model_v1, "v2": self.model_v2}[version]


class SettingsError(RuntimeError):
    """The environment does not say what the service needs to know; the message says what."""


class MissingSetting(SettingsError):
    """A setting that this command cannot do without is unset."""


class InvalidSetting(SettingsError):
    """A setting has a value that it cannot have."""

    def __init__(self, error: ValidationError) -> None:
        # What was given is not shown: it may be a password.
        lines = [
            f"{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        super().__init__("\n".join([*lines, 'README.md, "Settings", says what each is for']))


@cache
def get_settings() -> Settings:
    """The settings of this process.

    Raises:
        InvalidSetting: the environment or `.env` says something that cannot be.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise InvalidSetting(error) from None
