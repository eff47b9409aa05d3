"""Which sentiment each output of a checkpoint is: by its names, by a table, or as it is told."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from core.types import SENTIMENT_OF_LABEL, SENTIMENTS, Sentiment
from models.label_names import sentiment_of, stars_of
from runners.model_store import InvalidCheckpoint

# The entry of a saved config.json that holds the outputs when the names alone do not tell them.
SAVED_OUTPUTS = "sentiment_outputs"

_NUMBERED = re.compile(r"(?i)label_?\d+|\d+")
_GIVEN = re.compile(rf"\s*(.+?)\s*=\s*({'|'.join(SENTIMENT_OF_LABEL)})\s*(?:,|$)", re.IGNORECASE)
_EXAMPLE_LABELS = '{"0": "negative", "1": "positive"}'
# Of the names of classes in one line; models of emotions have some thirty.
_MOST_SHOWN = 50
_EACH = f"each one of {', '.join(SENTIMENTS)}"


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How a user reads the outputs of a checkpoint: the sentiment of each name, a threshold."""

    sentiments: Mapping[str, Sentiment] | None = None
    threshold: float | None = None


NO_OPTIONS = LabelOptions()


@dataclass(frozen=True, slots=True)
class Outputs:
    """The sentiment of each output of a checkpoint, in order, and what the checkpoint calls it.

    With a `threshold` it has one output, whose sigmoid is the probability of its sentiment. An
    answer is that sentiment from the threshold on.
    """

    names: tuple[str, ...]
    sentiments: tuple[Sentiment, ...]
    threshold: float | None = None

    @property
    def labels(self) -> tuple[Sentiment, ...]:
        """The sentiments of answers, each once."""
        if self.threshold is not None:
            return ("negative", "positive")
        return tuple(dict.fromkeys(self.sentiments))

    @property
    def is_plain(self) -> bool:
        """Whether each output is a sentiment of its own."""
        return self.labels == self.sentiments

    @property
    def named(self) -> bool:
        """Whether the names say the sentiments, so that `config.json` needs no other entry."""
        return self.is_plain and self.sentiments == tuple(
            SENTIMENT_OF_LABEL.get(name.lower()) for name in self.names
        )

    def as_config(self) -> dict[str, Any]:
        return {"sentiments": list(self.sentiments), "threshold": self.threshold}

    def __str__(self) -> str:
        pairs = ", ".join(
            f"{name} = {sentiment}"
            for name, sentiment in zip(self.names, self.sentiments, strict=True)
        )
        if self.threshold is None:
            return pairs
        return f"{pairs} from a probability of {self.threshold:g} on"


def parse_labels(text: str) -> dict[str, Sentiment]:
    """Read `LABEL_0=negative,LABEL_1=positive`.

    Raises:
        InvalidCheckpoint: it has another form, or a name twice.
    """
    given: dict[str, Sentiment] = {}
    end = 0
    while match := _GIVEN.match(text, end):
        name = match[1].lower()
        if name in given:
            raise InvalidCheckpoint(f"--labels has {match[1]} twice")
        given[name] = SENTIMENT_OF_LABEL[match[2].lower()]
        end = match.end()
    if end != len(text) or not given:
        raise InvalidCheckpoint(
            f"--labels cannot be read from '{text[end:]}' on. Write NAME=SENTIMENT with commas "
            f'between, {_EACH}, such as --labels "LABEL_0=negative,LABEL_1=positive"'
        )
    return given


def outputs_of(config: Mapping[str, Any], options: LabelOptions = NO_OPTIONS) -> Outputs:
    """The sentiments of a checkpoint's outputs, from its config.json and the user's options.

    Raises:
        InvalidCheckpoint: they cannot be told, or not both negative and positive are among them;
            the message has the line to type.
    """
    names = _names(config, options)
    saved = config.get(SAVED_OUTPUTS)
    if isinstance(saved, dict) and options == NO_OPTIONS:
        return _saved(names, saved)
    if len(names) == 1:
        return _single(names[0], config, options)
    if options.threshold is not None:
        raise InvalidCheckpoint(
            f"it has {len(names)} outputs, and --threshold is for a checkpoint with one. Leave it "
            "out"
        )
    if options.sentiments is not None:
        sentiments = _by_the_user(names, options.sentiments)
    else:
        sentiments = _by_name(names)
        _refuse_contradiction(names, config.get("label2id"))
    if not {"negative", "positive"} <= set(sentiments):
        raise InvalidCheckpoint(
            f"needs both negative and positive, and its classes are {_listed(names)}. Train it "
            "with both, or say with --labels which they are"
        )
    return Outputs(names, sentiments)


def _listed(names: Collection[object]) -> str:
    """Names for a sentence, of very many the first ones."""
    shown = ", ".join(map(str, islice(names, _MOST_SHOWN)))
    more = len(names) - _MOST_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def line_to_type(names: tuple[str, ...]) -> str:
    """The option that names the outputs, with a gap for each sentiment that is not known."""
    if len(names) > _MOST_SHOWN:
        return f'--labels "{names[0]}=...,{names[1]}=...", and so on ({_EACH})'
    known = [sentiment_of(name) for name in names]
    if len(names) == 2 and known == [None, None]:
        known = ["negative", "positive"]
    pairs = ",".join(f"{name}={found or '...'}" for name, found in zip(names, known, strict=True))
    return f'--labels "{pairs}" ({_EACH})'


def _names(config: Mapping[str, Any], options: LabelOptions) -> tuple[str, ...]:
    """The names of the outputs, in their order."""
    id2label = config.get("id2label")
    if isinstance(id2label, list):
        raise InvalidCheckpoint(
            f"config.json has a list as id2label. Write the numbers too, such as {_EXAMPLE_LABELS}"
        )
    if not id2label and options != NO_OPTIONS:
        # transformers writes none when they are numbered, and has two unless it is told.
        count = int(config.get("num_labels") or (1 if options.threshold is not None else 2))
        id2label = {str(number): f"LABEL_{number}" for number in range(count)}
    if not isinstance(id2label, dict) or not id2label:
        raise InvalidCheckpoint(
            "config.json has no id2label, so its classes have no names. Write it, such as "
            f'{_EXAMPLE_LABELS}, or say them: --labels "LABEL_0=negative,LABEL_1=positive"'
        )
    try:
        names = {int(index): str(name).strip() for index, name in id2label.items()}
    except ValueError:
        names = {}
    if sorted(names) != list(range(len(id2label))):
        raise InvalidCheckpoint(
            "id2label must number its classes 0 to n-1, in the order of the outputs, and has "
            f"{_listed(id2label)}"
        )
    return tuple(names[index] for index in sorted(names))


def _saved(names: tuple[str, ...], saved: Mapping[str, Any]) -> Outputs:
    sentiments, threshold = saved.get("sentiments"), saved.get("threshold")
    if isinstance(sentiments, list) and all(entry in SENTIMENTS for entry in sentiments):
        outputs = Outputs(names, tuple(sentiments), threshold)
        is_one = isinstance(threshold, float) and 0 < threshold < 1 and len(names) == 1
        fits = len(sentiments) == len(names) and (is_one or threshold is None)
        if fits and {"negative", "positive"} <= set(outputs.labels):
            return outputs
    raise InvalidCheckpoint(
        f"{SAVED_OUTPUTS} in config.json does not fit its {len(names)} classes. Remove it"
    )


def _single(name: str, config: Mapping[str, Any], options: LabelOptions) -> Outputs:
    """A single output, whose sigmoid is a probability."""
    if options.threshold is None:
        raise InvalidCheckpoint(
            f"it has one class ({name}), so its answer is a number and no sentiment. It needs "
            "negative and positive, each once. If the sigmoid of that number is the probability of "
            f"positive, add --threshold 0.5{_of_negative(name)}"
        )
    if not 0 < options.threshold < 1:
        raise InvalidCheckpoint(
            f"--threshold is {options.threshold:g}, and has to be a probability between 0 and 1"
        )
    if config.get("problem_type") == "regression":
        raise InvalidCheckpoint(
            "problem_type is regression, so its output is a grade and no probability, and a "
            "--threshold of a probability says nothing about it"
        )
    if options.sentiments is not None:
        [sentiment] = _by_the_user((name,), options.sentiments)
    else:
        sentiment = sentiment_of(name) or "positive"
    if sentiment == "neutral":
        raise InvalidCheckpoint(
            "its one output is neutral, and has to be negative or positive: "
            f"{line_to_type((name,))}"
        )
    return Outputs((name,), (sentiment,), options.threshold)


def _of_negative(name: str) -> str:
    return "" if sentiment_of(name) else f'; if that of negative, --labels "{name}=negative" too'


def _by_the_user(names: tuple[str, ...], given: Mapping[str, Sentiment]) -> tuple[Sentiment, ...]:
    """The sentiments that the user gave, by name or by number."""
    keys = [
        next((key for key in (name.lower(), str(number)) if key in given), None)
        for number, name in enumerate(names)
    ]
    missing = [name for name, key in zip(names, keys, strict=True) if key is None]
    if missing:
        raise InvalidCheckpoint(
            f"--labels does not name {_listed(missing)}. Write {line_to_type(names)}"
        )
    if extra := sorted(set(given) - set(keys)):
        raise InvalidCheckpoint(
            f"--labels names {_listed(extra)}, and its classes are {_listed(names)}. Write "
            f"{line_to_type(names)}"
        )
    return tuple(given[key] for key in keys if key is not None)


def _by_name(names: tuple[str, ...]) -> tuple[Sentiment, ...]:
    found = [sentiment_of(name) for name in names]
    if all(_NUMBERED.fullmatch(name) for name in names):
        raise InvalidCheckpoint(
            f"unknown labels {_listed(names)}: a number has no meaning that can be guessed. Add "
            f"{line_to_type(names)}"
        )
    stars = [stars_of(name) for name in names]
    unknown = [name for name, sentiment in zip(names, found, strict=True) if sentiment is None]
    # Three stars are in the middle only of one to five.
    if any(stars) and sorted(star or 0 for star in stars) != [1, 2, 3, 4, 5]:
        unknown = list(names)
    if unknown:
        known = ", ".join(sorted(SENTIMENT_OF_LABEL))
        raise InvalidCheckpoint(
            f"unknown labels {_listed(unknown)}: known are {known} and 1 to 5 stars. Add "
            f"{line_to_type(names)}"
        )
    sentiments = tuple(sentiment for sentiment in found if sentiment is not None)
    plain = [
        SENTIMENT_OF_LABEL[name.lower()] for name in names if name.lower() in SENTIMENT_OF_LABEL
    ]
    if len(set(plain)) != len(plain):
        raise InvalidCheckpoint(
            f"needs negative and positive, each once; id2label has {_listed(sentiments)}"
        )
    return sentiments


def _refuse_contradiction(names: tuple[str, ...], label2id: object) -> None:
    """Refuse a `label2id` that is not the reverse of `id2label`.

    transformers leaves LABEL_0 and so on there when only `id2label` is changed.
    """
    if not label2id:
        return
    reverse = label2id if isinstance(label2id, dict) else {str(label2id): "not given"}
    outputs = {str(number): name for number, name in enumerate(names)}
    for name, index in reverse.items():
        named = outputs.get(str(index))
        if name == f"LABEL_{index}":
            continue
        if named is None or named.lower() != str(name).strip().lower():
            raise InvalidCheckpoint(
                f"label2id says that {name} is output {index}, and id2label that output {index} is "
                f"{named or 'nothing'}. Correct the wrong one in config.json"
            )
