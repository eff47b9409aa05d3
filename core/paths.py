"""Where the checkout lies: the folder of service.py, and in the image its copy."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
