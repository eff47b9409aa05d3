"""Proof: the image runs with what Railway gives it, replayed with docker, not on Railway itself."""
