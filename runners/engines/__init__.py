"""Engines: what turns token ids into logits, and which of them a model version runs on."""
