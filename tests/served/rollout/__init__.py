"""Tests: served."""
