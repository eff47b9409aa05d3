"""The root folder: that of service.py, in a checkout, in a built Bento and in the image."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_data_path

ROOT = Path(__file__).resolve().parent.parent
# BentoML copies service.py into src/ of a Bento.
IS_BENTO = (ROOT.parent / "bento.yaml").is_file()
DEFAULT_DATA_FOLDER = Path(".data")


def resolve_data_folder(folder: Path) -> Path:
    """The absolute path of DATA_FOLDER.

    In a checkout it is relative to service.py, so that every command finds the same data wherever
    it is typed. A built Bento is replaced by the next one: its data lie in the user's home.
    """
    if not IS_BENTO:
        return ROOT / folder
    if folder == DEFAULT_DATA_FOLDER:
        return user_data_path("sentiment", appauthor=False)
    return Path.cwd() / folder
