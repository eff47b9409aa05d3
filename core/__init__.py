"""Shared foundations: every room may import core, and core imports no room."""

import os

# BentoML sends usage data unless this is set; every command of ours imports this room.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
