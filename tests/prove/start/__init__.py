"""Proof: in a fresh clone `make serve` answers right, without torch, on Debian 12 and Debian 13."""
