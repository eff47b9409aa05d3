"""Engines, which turn token ids into logits, and the choice of one for a model."""
