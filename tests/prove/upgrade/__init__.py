"""Proof: two builds replace each other, and a machine is lost, without a failed request."""
