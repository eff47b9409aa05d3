"""The served rollout of the suite, for the proofs that break it."""

from tests.served.rollout.conftest import admin, bento, client, home, tags

__all__ = ["admin", "bento", "client", "home", "tags"]
