"""Spools of a test, and what is in them."""

from __future__ import annotations

from analytics.log.records import Entry, to_record
from tests.unit.fakes import prediction

PLENTY = 1 << 30


def entry(text: str = "text") -> Entry:
    return Entry((to_record(prediction(text), "full"),))


def texts(entries: list[Entry]) -> list[str]:
    return [record.text for entry in entries for record in entry.predictions]
