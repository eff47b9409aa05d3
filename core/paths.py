"""The root folder: that of service.py, in a checkout and in the image."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
