"""Proof: the image builds, starts, answers, stops, and holds nothing it should not."""
