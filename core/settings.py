"""The only reader of settings: each one, its type, its default and its meaning.

`env_file` finds what is beside the environment.
"""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from core.api_keys import ApiKey, parse_api_keys
from core.env_file import ENCODING, ENV_FILE, env_file_problem, is_read_already
from core.paths import DEFAULT_DATA_FOLDER, resolve_data_folder
from core.setting_sources import TrimmedSource
from core.setting_types import (
    AllowedHosts,
    ApiKeys,
    CorsOrigins,
    DatabaseUrl,
    EventsSource,
    EventsToken,
    EventsUrl,
    HashKey,
    Host,
    JobFolders,
    KeyFile,
    MemorySize,
    ParquetUrl,
    PathPrefix,
    RateLimit,
    RedisUrl,
    RunnerKey,
    Salt,
    TrustedProxies,
    parse_hash_keys,
)
from core.types import (
    SINK_NAMES,
    EngineName,
    GoneEngine,
    LogFormat,
    LongText,
    SinkName,
    Version,
)
from core.urls import asyncpg_url, redis_py_url

if TYPE_CHECKING:
    from sqlalchemy import URL


class Settings(BaseSettings):
    """The settings of the environment and of the `.env` beside service.py, once read frozen.

    Field descriptions are the source of `.env.example` and of the README's table (a test compares).
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding=ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        allow_inf_nan=False,
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a URL that cannot be parsed may still hold a password
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then `.env`; both without the white space around a value."""
        del file_secret_settings
        read = (env_settings,) if is_read_already() else (env_settings, dotenv_settings)
        return (init_settings, *(TrimmedSource(settings_cls, source) for source in read))

    database_url: DatabaseUrl | None = None
    """URL of PostgreSQL; unset: the start makes a private PostgreSQL, but not in the image"""
    redis_url: RedisUrl | None = None
    """URL of Redis or Valkey; unset: the start makes a private Redis, but not in the image"""
    data_folder: Annotated[Path, AfterValidator(resolve_data_folder)] = Field(
        DEFAULT_DATA_FOLDER, validate_default=True
    )
    """folder of the spool, and of the private PostgreSQL and Redis"""
    host: Host = "127.0.0.1"
    """address to listen on; `::`: all addresses of this machine; 0.0.0.0: all of IPv4"""
    port: int = Field(3000, ge=1, le=65535)
    """port to listen on"""
    api_workers: int = Field(1, ge=1, le=64)
    """number of API processes"""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """least severe level to log: DEBUG, INFO, WARNING or ERROR"""
    log_format: LogFormat = "auto"
    """json: one object a line; text; auto: text on a terminal, else json"""

    api_keys: ApiKeys | None = Field(
        None,
        description="API keys and their scopes, as `sentiment make-key` prints them; "
        "unset: every client of this machine may use every endpoint",
    )
    api_keys_file: KeyFile | None = Field(
        None,
        description="file with one entry of API_KEYS a line; a change counts within seconds, "
        "without a restart",
    )
    allow_anonymous: bool = False
    """1 allows other machines to connect although there are no API keys"""
    runner_key: RunnerKey | None = None
    """secret between the API and runners on other machines, alike on all; at least 16 characters"""
    runner_key_also_accepted: RunnerKey | None = None
    """a second key that runners accept, while RUNNER_KEY is replaced by another"""
    cors_origins: CorsOrigins = ()
    """websites whose scripts may call the API, as https://shop.example; unset: none"""
    allowed_hosts: AllowedHosts = Field(
        (),
        description="names under which clients reach the service, beside its address; other names "
        "are refused (421); *: any; unset: any, or none if HOST is a loopback address",
    )
    forwarded_allow_ips: TrustedProxies = Field(
        (),
        description="addresses or networks of the proxies whose X-Forwarded-For counts; *: "
        "whichever connects; unset: none",
    )
    path_prefix: PathPrefix = Field(
        "",
        description="path below which a proxy has the service, as /sentiment, if the proxy leaves "
        "it in the path; paths without it are answered too",
    )
    rate_limit_predict: RateLimit = "100/minute"
    """limit per client, or off: /predict, /predict/ab, /predict/ab-compare, /feedback, /jobs"""
    rate_limit_batch: RateLimit = "20/minute"
    """limit per client, or off, in batches of MAX_BATCH_TEXTS: /predict/batch, /v2, /tei, others"""
    rate_limit_analytics: RateLimit = "60/minute"
    """limit per client, or off: /analytics/..."""
    rate_limit_admin: RateLimit = "600/minute"
    """limit per client, or off: /admin/..."""

    model_v1: str = "sentiment-distilbert-v1:latest"
    """tag of v1 in the BentoML model store"""
    model_v2: str = "sentiment-distilbert-v2:latest"
    """tag of v2 in the BentoML model store"""
    default_version: Version = "v1"
    """version that answers /predict without a version; a rollout may change it"""
    ab_v2_percent: float = Field(50.0, ge=0, le=100)
    """percent of the subjects of /predict/ab that get v2; a rollout may change it"""
    ab_salt: Salt = "ab-1"
    """salt of the A/B split, a secret of at most 100 characters; another assigns subjects anew"""

    max_batch_texts: int = Field(100, ge=1, le=10_000)
    """most texts in one /predict/batch"""
    max_text_chars: int = Field(5_000, ge=1, le=200_000)
    """most characters of a text, after stripping; a request has to fit into MAX_BODY_BYTES too"""
    long_text: LongText = Field(
        "truncate",
        description="a text of more tokens than the model's window, unless a request says it "
        "(a job that says nothing: truncate); "
        "truncate: its beginning is read; windows: all of it is read, in overlapping windows; "
        "refuse: answer 422",
    )
    max_body_bytes: int = Field(4_194_304, ge=65_536, le=1 << 30)
    """larger request bodies are refused (413)"""
    body_timeout_seconds: float = Field(10.0, ge=0.1, le=3_600)
    """slower request headers and bodies are refused (408)"""
    keep_alive_seconds: int = Field(75, gt=0, le=86_400)
    """idle connections are closed after this; keep it above the load balancer's"""
    request_timeout_seconds: float = Field(30.0, ge=0.01, le=3_600)
    """longest time for a reply, else 504; X-Request-Timeout-Ms asks for less"""
    drain_seconds: float = Field(1.0, ge=0, le=3_600)
    """after SIGTERM the service is not ready but still serves for this time"""
    stop_seconds: float = Field(30.0, gt=0, le=3_600)
    """a worker that has not stopped by then is killed; the log is kept"""
    engine: Literal["auto", EngineName, GoneEngine] = "auto"
    """inference engine; auto: the saved engine that is measured to be the fastest on this CPU"""
    runner_threads: int = Field(0, ge=0, le=1_024)
    """batches that a runner computes at once, one a core; 0: one a CPU"""
    max_queue_seconds: float = Field(1.0, gt=0, le=3_600)
    """a request that would wait longer for a model is refused (503)"""
    max_bulk_queue_seconds: float = Field(5.0, gt=0, le=3_600)
    """the same for large batches, which have their own queue"""
    max_queued_texts: int = Field(10_000, ge=1, le=10_000_000)
    """most texts that may wait for a model, in each queue"""
    max_queued_tokens: int = Field(500_000, ge=1, le=1_000_000_000)
    """most tokens (estimated) that may wait, in each queue"""
    mkldnn_enable: bool = True
    """0: no engine that computes with oneDNN, for CPUs where it is slow or broken (some ARM)"""

    cache_ttl_seconds: int = Field(86_400, ge=1, le=315_360_000)
    """time until a cached answer expires"""
    local_cache_entries: int = Field(2_000, ge=0, le=100_000_000)
    """answers cached in the memory of each API process; 0: none"""
    idempotency_seconds: int = Field(86_400, ge=60, le=604_800)
    """time for which Redis keeps the answer to a request with an Idempotency-Key"""
    redis_timeout_seconds: float = Field(0.25, ge=0.001, le=60)
    """longest wait for one Redis command"""
    redis_max_memory: MemorySize = "256mb"
    """memory of the private Redis, from 2mb on; it evicts the least recently used keys"""

    job_folders: JobFolders = Field(
        (),
        description="folders whose files POST /jobs may score by their path, with commas; unset: "
        "none, jobs are uploaded",
    )
    job_upload_bytes: int = Field(1 << 30, ge=1 << 20, le=1 << 40)
    """largest file that POST /jobs takes (413)"""
    job_max_bytes: int = Field(10 << 30, ge=1 << 20, le=1 << 50)
    """most bytes of all jobs' files in DATA_FOLDER/jobs; past it uploads are refused (507)"""
    job_retention_hours: float = Field(72.0, gt=0, le=87_600)
    """hours after its end until a job and its result are removed"""

    otel_exporter_otlp_endpoint: str | None = None
    """OpenTelemetry collector, as http://127.0.0.1:4318; unset: no traces"""
    otel_exporter_otlp_traces_endpoint: str | None = None
    """the same, with the whole path"""
    otel_traces_exporter: str | None = None
    """otlp: traces also without an endpoint, to http://127.0.0.1:4318; none: no traces"""
    otel_exporter_otlp_protocol: str | None = None
    """protocol to the collector; nothing but http/protobuf is supported"""
    otel_exporter_otlp_traces_protocol: str | None = None
    """the same, for traces alone"""
    otel_service_name: str = "sentiment"
    """service name in traces; the runners are NAME-runner-v1 and -v2"""
    otel_sdk_disabled: bool = False
    """1 turns traces off"""

    text_storage: Literal["full", "hash", "none"] = "hash"
    """how the prediction log stores texts: full, hash (only a keyed hash) or none"""
    log_hash_key: HashKey | None = Field(
        None,
        description="keys of the hashes of texts and subjects in the log, newest first, separated "
        "by commas, as `openssl rand -hex 32` makes them; the same on all machines; unset: "
        "PostgreSQL keeps one",
    )
    log_hash_key_file: KeyFile | None = None
    """file with the keys of LOG_HASH_KEY, one a line"""
    log_retention_days: int = Field(90, ge=0, le=36_500)
    """days of the prediction log and of analytics; 0: forever"""
    text_retention_days: int = Field(0, ge=0, le=36_500)
    """days after which a stored text is removed from its prediction; 0: LOG_RETENTION_DAYS"""
    admin_log_retention_days: int = Field(0, ge=0, le=36_500)
    """days of the log of admin actions, of which less than 366 count as 366; 0: forever"""
    content_texts_per_second: float = Field(1.0, ge=0, le=100)
    """texts of each version, in each API process, whose content is compared for drift; 0: none"""
    log_durability: Literal["fsync", "page_cache"] = Field(
        "fsync",
        description="a prediction is on disk before its reply leaves; fsync: it survives a power "
        "cut; page_cache: it survives the end of every process",
    )
    log_max_bytes: int = Field(1 << 30, ge=64 << 20, le=1 << 50)
    """largest spool that waits for PostgreSQL; about 400 bytes a prediction"""
    log_when_full: Literal["refuse", "drop_oldest"] = Field(
        "refuse",
        description="when the spool or its disk is full; refuse: answer 503; drop_oldest: drop "
        "the oldest predictions and count them",
    )
    log_flush_seconds: float = Field(0.25, gt=0, le=60)
    """interval at which the spool is shipped to PostgreSQL"""
    log_events_url: EventsUrl | None = Field(
        None,
        description="HTTP endpoint that gets each stored prediction as a CloudEvent, at least "
        "once; unset: none",
    )
    log_events_token: EventsToken | None = Field(
        None,
        description="secret that the endpoint gets as `Authorization: Bearer ...`; with a scheme "
        "of its own, as `Basic ...`, it is the whole header",
    )
    log_events_source: EventsSource = "/sentiment"
    """`source` of the events, a URI; the same on all machines"""
    log_events_mode: Literal["batch", "structured"] = Field(
        "batch",
        description="batch: up to 100 events a request; structured: one, for receivers that take "
        "no batches",
    )
    log_parquet_url: ParquetUrl | None = Field(
        None,
        description="folder that gets each stored prediction in a Parquet file of its hour, "
        "exactly once: a path, or a URL such as s3://bucket/folder; needs pyarrow; unset: none",
    )
    log_parquet_seconds: float = Field(300.0, ge=1, le=86_400)
    """predictions wait so long for a larger Parquet file, of up to 20,000"""
    log_sink_max_predictions: int = Field(1_000_000, ge=1_000, le=1_000_000_000)
    """most predictions that may wait for an endpoint or folder that is down, at 40 to 150 bytes"""
    log_drain_seconds: float = Field(10.0, ge=0, le=3_600)
    """after SIGTERM, longest time in which the spool is shipped; what is left stays on disk"""
    database_pool_size: int = Field(5, ge=3, le=1_000)
    """PostgreSQL connections of each API process, which keeps half of them, 2 or 3, to itself"""
    database_timeout_seconds: float = Field(5.0, ge=0.1, le=3_600)
    """longest wait for a connection or an analytics query"""

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        """Refuse bytes that are no text: a driver or a file of the service would, much later."""
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("must be in UTF-8") from None
        return value

    def sqlalchemy_url(self) -> URL:
        """`DATABASE_URL` for asyncpg.

        Raises:
            MissingSetting: `DATABASE_URL` is unset.
            sqlalchemy.exc.ArgumentError: the URL cannot be parsed.
        """
        if self.database_url is None:
            raise MissingSetting(
                "DATABASE_URL is not set. Set it to postgresql://user:password@host/db, as the "
                "service has it"
            )
        return asyncpg_url(self.database_url.get_secret_value())

    @property
    def has_database_urls(self) -> bool:
        """Whether neither a private PostgreSQL nor a private Redis is needed."""
        return self.database_url is not None and self.redis_url is not None

    @property
    def api_stop_seconds(self) -> float:
        """The longest stop of an API process: it serves on, ends its requests, ships its spool."""
        return self.drain_seconds + self.stop_seconds + self.log_drain_seconds

    def hash_keys(self) -> tuple[bytes, ...]:
        """The keys of LOG_HASH_KEY, newest first; none if PostgreSQL keeps the key.

        Raises:
            SettingsError: the file cannot be read or has no keys, or both settings are set.
        """
        if self.log_hash_key is not None and self.log_hash_key_file is not None:
            raise SettingsError("LOG_HASH_KEY and LOG_HASH_KEY_FILE are both set: unset one")
        if self.log_hash_key is not None:
            return parse_hash_keys(self.log_hash_key.get_secret_value())
        if self.log_hash_key_file is None:
            return ()
        # Imported here, because it imports the metrics.
        from core.key_ring import read_key_file

        try:
            return parse_hash_keys(read_key_file(self.log_hash_key_file).decode("ascii"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(f"LOG_HASH_KEY_FILE={self.log_hash_key_file}: {reason}") from None

    @property
    def sinks(self) -> tuple[SinkName, ...]:
        """The sinks that stored predictions are handed on to."""
        urls = {"events": self.log_events_url, "parquet": self.log_parquet_url}
        return tuple(name for name in SINK_NAMES if urls[name] is not None)

    def spool_folder(self) -> Path:
        """The folder of the spool, where predictions wait for PostgreSQL."""
        return self.data_folder / "spool"

    def redis_connection_url(self) -> str:
        """`REDIS_URL`, as text that redis-py reads right.

        Raises:
            MissingSetting: `REDIS_URL` is unset.
        """
        if self.redis_url is None:
            raise MissingSetting(
                "REDIS_URL is not set. Set it to redis://host:6379/0, as the service has it"
            )
        return redis_py_url(self.redis_url.get_secret_value())

    @property
    def is_traced(self) -> bool:
        """Whether traces are sent. OpenTelemetry reads its other variables itself."""
        exporter = (self.otel_traces_exporter or "").lower()
        return (
            not self.otel_sdk_disabled
            and exporter != "none"
            and (exporter == "otlp" or self.traces_endpoint is not None)
        )

    @property
    def traces_endpoint(self) -> str | None:
        """The URL for traces, whole; None: the default of OpenTelemetry."""
        if self.otel_exporter_otlp_traces_endpoint or not self.otel_exporter_otlp_endpoint:
            return self.otel_exporter_otlp_traces_endpoint
        return f"{self.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"

    def known_keys(self) -> tuple[ApiKey, ...]:
        return parse_api_keys(self.api_keys.get_secret_value()) if self.api_keys else ()

    @property
    def is_open(self) -> bool:
        """Whether every client may use every endpoint, because there are no API keys."""
        return not self.known_keys() and self.api_keys_file is None

    @property
    def accepted_hosts(self) -> frozenset[str] | None:
        """Names in a Host header that are this service's, beside its address; None: any."""
        if "*" in self.allowed_hosts:
            return None
        if not self.allowed_hosts and not ip_address(self.host).is_loopback:
            return None
        return frozenset(self.allowed_hosts)

    @property
    def sent_runner_key(self) -> str | None:
        """The key that the API sends to runners."""
        return self.runner_key.get_secret_value() if self.runner_key else None

    @property
    def accepted_runner_keys(self) -> tuple[str, ...]:
        """The keys that a runner accepts; with none, it takes callers of its own machine."""
        keys = (self.runner_key, self.runner_key_also_accepted)
        return tuple(key.get_secret_value() for key in keys if key is not None)

    def model_tag(self, version: Version) -> str:
        return {"v1": self.model_v1, "v2": self.model_v2}[version]


class SettingsError(RuntimeError):
    """A setting is missing or invalid; the message names it and the allowed values."""


class MissingSetting(SettingsError):
    """A setting that this command needs is unset."""


class InvalidSetting(SettingsError):
    """The value of a setting is not allowed."""

    def __init__(self, error: ValidationError) -> None:
        # The message does not show the value, which may be a password.
        lines = [
            f"{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        super().__init__("; ".join([*lines, "docs/settings.md explains each setting"]))


@cache
def get_settings() -> Settings:
    """Read the settings of this process.

    Raises:
        SettingsError: the environment or `.env` has a value that is not allowed, or `.env` cannot
            be read.
    """
    if not is_read_already() and (problem := env_file_problem()):
        raise SettingsError(f"{ENV_FILE} cannot be read: {problem}")
    try:
        return Settings()
    except ValidationError as error:
        raise InvalidSetting(error) from None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{ENV_FILE} cannot be read: {reason}") from None
