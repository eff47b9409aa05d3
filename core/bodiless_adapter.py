"""An adapter of requests that reads no body of an answer.

OpenTelemetry's exporter reads a collector's answer whole, however long it is, and uses its status.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter


class BodilessAdapter(HTTPAdapter):
    """Closes the connection after the head of an answer; its body is empty."""

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        response = super().send(request, *args, **{**options, "stream": True})
        response.raw.close()
        response.raw = BytesIO()
        return response
