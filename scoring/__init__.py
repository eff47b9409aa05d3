"""Scores files of any size: reading, scoring and writing, row for row and resumable."""
