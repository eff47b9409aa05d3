"""The GET endpoints."""
