"""What settings must say together, and the settings of a process that serves."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from ipaddress import ip_address

from core.otlp import check_otlp
from core.own_url import is_own_url
from core.settings import MissingSetting, Settings, SettingsError, get_settings


def settings_for_serving() -> Settings:
    """Read the settings of a serving process.

    Raises:
        SystemExit: they cannot work, or Python leaves docstrings out; the message is one line, and
            the exit code is 1.
    """
    if sys.flags.optimize > 1:
        raise SystemExit(
            "PYTHONOPTIMIZE=2 (-OO) leaves out the docstrings that BentoML's process manager "
            "reads: unset it"
        )
    try:
        settings = get_settings()
        check_together(settings)
        check_tracing(settings)
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    return settings


def check_together(settings: Settings) -> None:
    """Check what a start checks of its settings beyond each by itself, but for traces.

    Raises:
        SettingsError: they cannot work together, or a file that one names has no keys.
    """
    check_open(settings)
    check_runner_keys(settings)
    check_sinks(settings)
    settings.hash_keys()


def check_open(settings: Settings) -> None:
    """Check that a service without keys is for this machine alone, or allows anonymous clients.

    Raises:
        MissingSetting: neither is the case.
    """
    if settings.is_open and not settings.allow_anonymous and (way := _way_in(settings)):
        raise MissingSetting(
            f"{way} lets other machines connect, but API_KEYS is not set. Make a "
            "key with `sentiment make-key NAME`, or set ALLOW_ANONYMOUS=1"
        )


def _way_in(settings: Settings) -> str | None:
    """The setting by which clients of other machines reach the service; None: they do not."""
    if not ip_address(settings.host).is_loopback:
        return f"HOST={settings.host}"
    # Names that a proxy on this machine hands on.
    if others := [name for name in settings.allowed_hosts if not is_own_url(f"http://{name}")]:
        return f"ALLOWED_HOSTS={','.join(others)}"
    return None


def check_runner_keys(settings: Settings) -> None:
    """Check that a second key does not stand alone.

    Raises:
        MissingSetting: runners would accept it, and the API would send none.
    """
    if settings.runner_key is None and settings.runner_key_also_accepted is not None:
        raise MissingSetting(
            "RUNNER_KEY is not set, but RUNNER_KEY_ALSO_ACCEPTED is. Set RUNNER_KEY to the key "
            "that the API sends"
        )


def check_tracing(settings: Settings) -> None:
    """Check the variables of OpenTelemetry, if traces are wanted.

    Raises:
        SettingsError: the service cannot do what they ask for.
    """
    is_off = (settings.otel_traces_exporter or "").lower() == "none" or settings.otel_sdk_disabled
    if not is_off and (settings.is_traced or settings.otel_traces_exporter):
        try:
            check_otlp(
                exporter=settings.otel_traces_exporter,
                protocols={
                    "TRACES_PROTOCOL": settings.otel_exporter_otlp_traces_protocol,
                    "PROTOCOL": settings.otel_exporter_otlp_protocol,
                },
                endpoints={
                    "TRACES_ENDPOINT": settings.otel_exporter_otlp_traces_endpoint,
                    "ENDPOINT": settings.otel_exporter_otlp_endpoint,
                },
            )
        except ValueError as error:
            raise SettingsError(str(error)) from None


def check_sinks(settings: Settings) -> None:
    """Check that what LOG_PARQUET_URL needs is installed, and that no token stands alone.

    Raises:
        SettingsError: the sinks cannot work.
    """
    if settings.log_events_url is None and settings.log_events_token is not None:
        raise MissingSetting("LOG_EVENTS_URL is not set, but LOG_EVENTS_TOKEN is: set both or none")
    if settings.log_parquet_url is None:
        return
    package = missing_package(settings.log_parquet_url)
    if package is not None:
        raise SettingsError(
            f"LOG_PARQUET_URL needs the package {package}, which is not installed: install it, as "
            "docs/sinks.md says, or unset LOG_PARQUET_URL"
        )


def missing_package(url: str) -> str | None:
    """The first package that a folder of Parquet files needs and that is not installed.

    Raises:
        SettingsError: no package is known for the URL.
    """
    if find_spec("pyarrow") is None:
        return "pyarrow"
    scheme, separator, _ = url.partition("://")
    if not separator:
        return None
    # Imported here: a service without this sink does not need it.
    from fsspec.registry import known_implementations

    if scheme not in known_implementations:
        raise SettingsError(f"LOG_PARQUET_URL: fsspec knows no file system for {scheme}://")
    package = str(known_implementations[scheme]["class"]).partition(".")[0]
    return package if find_spec(package) is None else None
