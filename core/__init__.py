"""Shared foundations: every room may import core, and core imports no room."""
