"""Proof: the dashboard works in a real Chromium."""
