"""Invented histories, in a real PostgreSQL."""
