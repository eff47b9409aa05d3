"""Proof: whatever ends, hangs or is busy, no process, port or prediction is left behind."""
