"""The committed adapters of the starter models and the facts about each; imports no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

ADAPTERS = Path(__file__).parent / "adapters"
CARD_FILE = "card.json"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


class StarterError(Exception):
    """A starter model cannot be made."""


class UnknownStarterError(StarterError):
    """No adapter is committed for this version."""


def starter_versions() -> list[str]:
    """Versions with a committed adapter, oldest first."""
    return sorted(card.parent.name for card in ADAPTERS.glob(f"*/{CARD_FILE}"))


def read_card(version: str) -> dict[str, Any]:
    """The ingredients of one version, and how often it was right, per held-out set (0 to 1)."""
    card = _card(version)
    accuracies = {domain: result["accuracy"] for domain, result in card["held_out"].items()}
    facts = {name: card[name] for name in ("base", "training_data", "licence")}
    return {**facts, "held_out_accuracy": accuracies}


def _card(version: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((adapter_folder(version) / CARD_FILE).read_bytes())
    return card


def adapter_folder(version: str) -> Path:
    """Where the adapter of a version is. Raises UnknownStarterError."""
    if version not in starter_versions():
        raise UnknownStarterError(
            f"no starter {version!r}; committed: {', '.join(starter_versions())}"
        )
    return ADAPTERS / version


def adapter_digest(version: str) -> str:
    """The SHA-256 of a version's adapter: tells whether a saved model is of today's."""
    with (adapter_folder(version) / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
