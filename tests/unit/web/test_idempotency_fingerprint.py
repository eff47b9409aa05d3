"""Redis holds no hash of a body that can be guessed."""

from __future__ import annotations

import hashlib

import pytest

from web.idempotency import KeyedRequest

TEXTS = ("a", "ok", "no", "Nice!", "漢字", "", "x" * 5_000, "1", "ana@example.org", " ")


def request(key: bytes, body: bytes) -> KeyedRequest:
    scope = {"type": "http", "path": "/predict", "headers": [(b"content-type", b"text/csv")]}
    return KeyedRequest.of(scope, key, body)


@pytest.mark.parametrize("text", TEXTS)
def test_fingerprint_of_a_body_needs_the_key_of_its_request(text: str) -> None:
    for body in (text.encode(), b'{"text": "%s"}' % text.encode()):
        plain = hashlib.sha256(body)
        with_header = plain.copy()
        with_header.update(b"\0content-type:text/csv")
        first = request(b"a key", body)
        assert first.fingerprint not in {plain.digest(), with_header.digest()}
        assert first.fingerprint == request(b"a key", body).fingerprint
        assert first.fingerprint != request(b"another key", body).fingerprint


def test_trial_is_another_request_than_what_is_recorded() -> None:
    def sent(*headers: tuple[bytes, bytes]) -> KeyedRequest:
        scope = {"type": "http", "path": "/predict", "headers": headers}
        return KeyedRequest.of(scope, b"key", b"")

    trial = sent((b"x-sentiment-source", b"playground"))
    assert trial.digest == sent().digest
    assert trial.fingerprint != sent().fingerprint
