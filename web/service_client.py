"""A client of a running service, for commands: every failure is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from core.command_output import CommandFailed
from core.errors import describe_error
from core.own_url import is_own_url, own_url
from core.printable import printable_values
from core.settings import get_settings
from core.small_files import read_small_text

TIMEOUT_SECONDS = 10.0
MAX_KEY_CHARACTERS = 4_096
_KEY_HINT = "; --key-file takes a file with an API key"


class ServiceClient(httpx.Client):
    """Client of the GET endpoints and those under /admin."""

    def call(
        self, method: str, path: str, *, field: str, accepts: int = 200, **content: Any
    ) -> dict[str, Any]:
        """The JSON object, with `field` in it, of a reply with success or the status `accepts`.

        Raises:
            CommandFailed: the service does not answer, or refuses; the message has its reason. Or
                the content holds half a surrogate pair, which UTF-8 does not have.
        """
        try:
            reply = self.request(method, path, **content)
        except UnicodeEncodeError as error:
            raise CommandFailed(f"it cannot be sent: {describe_error(error)}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(f"{self.base_url} does not answer ({reason}); set --url") from error
        hint = _KEY_HINT if reply.status_code in {401, 403} else ""
        if reply.status_code in {429, 503} and (seconds := reply.headers.get("Retry-After")):
            hint = f"; try again in {seconds} s"
        try:
            # Others wrote some of it, and a terminal obeys what it is sent.
            fields: dict[str, Any] = printable_values(reply.json())
            if reply.is_success or reply.status_code == accepts:
                fields[field]
                return dict(fields)
            detail = fields["detail"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise CommandFailed(
                f"{self.base_url} answers {reply.status_code}, but not as this service{hint}; "
                "set --url"
            ) from error
        raise CommandFailed(f"{reply.status_code}: {detail}{hint}")

    def models(self) -> dict[str, Any]:
        """The runners' report on the model of each version."""
        # /health answers 503 with its report where predictions cannot be served.
        models: dict[str, Any] = self.call("GET", "/health", field="versions", accepts=503)[
            "versions"
        ]
        return models


def connect(url: str | None, key_file: Path | None) -> ServiceClient:
    """A client of the service at `url`, else of this machine's, at HOST and PORT.

    Raises:
        CommandFailed: the URL cannot be called, or the file holds no key.
        SettingsError: a setting is invalid.
    """
    settings = get_settings()
    headers = {"Authorization": f"Bearer {_key(key_file)}"} if key_file else {}
    base_url = url or own_url(settings.host, settings.port)
    if not base_url.startswith(("http://", "https://")):
        raise CommandFailed(f"{base_url} has no http:// or https:// before it; set --url")
    try:
        return ServiceClient(
            base_url=base_url,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            # A proxy of the environment leads to others only.
            trust_env=not is_own_url(base_url) and url is not None,
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise CommandFailed(f"{base_url} cannot be called ({error}); set --url") from error


def _key(file: Path) -> str:
    try:
        key = read_small_text(file, MAX_KEY_CHARACTERS).strip()
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file} cannot be read: {_reason(error)}") from error
    if not key.isascii() or not key.isprintable() or not key or " " in key:
        raise CommandFailed(f"{file} holds no API key: it must be one line of ASCII")
    return key


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return describe_error(error) if isinstance(error, UnicodeError) else str(error)
