"""Scoring of files of any size, row by row and resumable."""
