"""Proofs: tests that need a container engine, a downloaded program, or minutes.

`make prove-NAME` runs the folder NAME and records the result in docs/proofs.md.
"""
