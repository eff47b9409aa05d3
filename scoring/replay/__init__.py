"""Logged texts scored by a candidate model, and compared with what was served."""
