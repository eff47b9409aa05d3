"""Shared foundations: every room may import core, and core imports no room."""

from core.telemetry import disable_telemetry

# Every process imports core before the libraries that would report.
disable_telemetry()
