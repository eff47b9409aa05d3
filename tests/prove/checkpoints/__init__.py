"""Proof: a saved checkpoint opens in transformers 4 with the answers that are served."""
