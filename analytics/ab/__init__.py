"""A/B: what the rollups say of v1 against v2."""
