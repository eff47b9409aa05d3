"""Proof: a saved checkpoint of every architecture opens in transformers 4 and 5 with the answers that are served."""
