"""The options of a job: the formats of its file, and its versions."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request

from core.errors import InvalidRequest, UnsupportedMedia, invalid_field
from core.jobs import JobFormat
from core.types import VERSIONS, Version

MEDIA_TYPES: dict[JobFormat, str] = {
    "csv": "text/csv",
    "jsonl": "application/jsonlines",
    "parquet": "application/vnd.apache.parquet",
}
FORMATS: dict[str, JobFormat | None] = {
    **{media_type: format_ for format_, media_type in MEDIA_TYPES.items()},
    "text/tab-separated-values": "csv",
    "application/x-ndjson": "jsonl",
    "application/octet-stream": None,  # `from` says it
}


def versions_of(text: str) -> tuple[Version, ...]:
    requested = [name.strip() for name in text.split(",")]
    known = tuple(version for version in VERSIONS if version in requested)
    if not known or len(known) != len(requested):
        raise invalid_field("versions", "must be v1, v2 or v1,v2")
    return known


def format_of(request: Request, path: str | None, named: JobFormat | None) -> JobFormat:
    """The format of a job's file: the `named` one, or that of its name or Content-Type.

    Raises:
        UnsupportedMedia: an upload has a Content-Type that a page of another site may send unasked.
        InvalidRequest: nothing says the format.
    """
    if path is not None:
        return named or _format_of_name(path)
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in FORMATS:
        refusal = UnsupportedMedia(f"Send one Content-Type: {' or '.join(FORMATS)}")
        refusal.headers = {"Accept-Post": ", ".join(FORMATS)}
        raise refusal
    format_ = named or FORMATS[sent]
    if format_ is None:
        raise invalid_field("from", "is required for this content type: csv, jsonl or parquet")
    return format_


def _format_of_name(path: str) -> JobFormat:
    suffixes = [suffix for suffix in Path(path).suffixes if suffix not in (".gz", ".zst")]
    match suffixes[-1:]:
        case [".csv" | ".tsv"]:
            return "csv"
        case [".jsonl" | ".ndjson"]:
            return "jsonl"
        case [".parquet"]:
            return "parquet"
    raise InvalidRequest("from: is required for this name of a file: csv, jsonl or parquet")
