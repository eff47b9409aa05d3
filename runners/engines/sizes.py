"""Names the sizes of a model, on which the speed of its engines depends."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from runners.engines.weights import ABOUT_THE_FILE, CONFIG_FILE, READING

# Of a config.json: what names outputs or tokens, or tells of the file. What is not known to cost no
# time makes another size.
_WITHOUT_COST = frozenset(
    {READING, *ABOUT_THE_FILE}
    | {"id2label", "label2id", "vocab_size"}
    | {"bos_token_id", "cls_token_id", "eos_token_id", "pad_token_id", "sep_token_id"}
)

_SIZES_CHARACTERS = 12


def sizes_of(folder: Path) -> str:
    """A short name for what the speed of a model's engines depends on, which is not its weights.

    Models of one architecture, as deep and as wide, have the same. Without a config.json the folder
    has a name of its own.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        said = {name: value for name, value in config.items() if name not in _WITHOUT_COST}
    except (OSError, ValueError, AttributeError):
        said = {"folder": folder.name}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:_SIZES_CHARACTERS]
