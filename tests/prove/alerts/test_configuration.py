"""Prometheus' and Alertmanager's own tools accept the configuration."""

from __future__ import annotations

from monitoring.tools import check_configuration


def test_promtool_and_amtool_accept_rules_their_tests_and_configuration() -> None:
    assert check_configuration() == 0
