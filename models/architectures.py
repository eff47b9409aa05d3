"""The architectures of encoders that can be served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runners.engines.weights import DISTILBERT

# No text is longer for most architectures, whatever their configuration allows.
USUAL_WINDOW: Final = 512


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture as transformers knows it.

    `window` is the most tokens of a text that this service allows, and `default_window` the most
    unless the import says otherwise. With `positions_after_padding`
    the first token has the position after that of padding, so the window is that much shorter than
    the table of positions.
    """

    model_type: str
    window: int = USUAL_WINDOW
    default_window: int = USUAL_WINDOW
    positions_after_padding: bool = False


# By the name in config.json.
ARCHITECTURES: Final = {
    "AlbertForSequenceClassification": Architecture("albert"),
    "BertForSequenceClassification": Architecture("bert"),
    "CamembertForSequenceClassification": Architecture("camembert", positions_after_padding=True),
    "DebertaV2ForSequenceClassification": Architecture("deberta-v2"),
    "DistilBertForSequenceClassification": Architecture(DISTILBERT),
    "ElectraForSequenceClassification": Architecture("electra"),
    "MPNetForSequenceClassification": Architecture("mpnet", positions_after_padding=True),
    "ModernBertForSequenceClassification": Architecture(
        # A text of 8,192 tokens takes a minute and 9 GB (docs/models.md), and 5,000 characters can
        # be as many. The usual 5,000 characters are some 1,200.
        "modernbert",
        window=8_192,
        default_window=2_048,
    ),
    "RobertaForSequenceClassification": Architecture("roberta", positions_after_padding=True),
    "XLMRobertaForSequenceClassification": Architecture(
        "xlm-roberta", positions_after_padding=True
    ),
}
