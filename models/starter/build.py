"""Builds a starter model folder from the packaged encoder and a committed adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from models.starter.card import adapter_folder, read_card
from models.starter.encoder import (
    CONFIG,
    TOKENIZER_CONFIG,
    VOCABULARY_FILE,
    find_encoder,
    read_encoder,
    read_tokenizer,
)
from models.starter.merging import merge_adapter
from runners.engines.weights import WEIGHTS_FILE


def build_starter(version: str, output_folder: Path) -> dict[str, Any]:
    """Write one version in the Hugging Face layout, ready for `from_pretrained`; return its card.

    Takes two seconds, no network and no torch. Raises UnknownStarterError or
    EncoderNotInstalledError.
    """
    card = read_card(version)
    build_from(adapter_folder(version), output_folder)
    return card


def build_from(adapter: Path, output_folder: Path) -> None:
    """Write the packaged encoder with the adapter in a folder, in the Hugging Face layout.

    Raises:
        EncoderNotInstalledError: the encoder's package is absent.
    """
    encoder = find_encoder()
    output_folder.mkdir(parents=True, exist_ok=True)
    weights = merge_adapter(read_encoder(encoder), adapter)
    save_file(weights, output_folder / WEIGHTS_FILE, metadata={"format": "pt"})
    for name, content in (("config", CONFIG), ("tokenizer_config", TOKENIZER_CONFIG)):
        (output_folder / f"{name}.json").write_text(
            json.dumps(content, indent=2) + "\n", encoding="utf-8"
        )
    read_tokenizer(encoder).save(str(output_folder / "tokenizer.json"))
    # tokenizer.json holds it too; other runtimes read the vocabulary.
    shutil.copyfile(encoder / VOCABULARY_FILE, output_folder / VOCABULARY_FILE)
