"""Proof: saved checkpoints of every architecture open in transformers with the served answers."""
