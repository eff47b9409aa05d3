"""The dashboard: one page, its scripts and styles."""
