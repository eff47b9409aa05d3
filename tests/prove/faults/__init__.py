"""Proof: no acknowledged prediction is lost when processes are killed under traffic."""
