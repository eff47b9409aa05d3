"""The served answers and a candidate's, compared: by predictions, by texts, and by labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from core.types import SENTIMENTS, Sentiment, Version
from scoring.replay.observations import Observation
from stats.outcomes import Interval, PairedOutcomes
from stats.paired import ConfidenceDifferences, compare_pairs
from stats.verdict import paired_verdict
from stats.wilson import wilson_interval

CONFIDENCE_BINS = 20


@dataclass(frozen=True, slots=True)
class Cell:
    """The predictions and the texts that were answered `served` and get `candidate` now."""

    served: Sentiment
    candidate: Sentiment
    predictions: int
    texts: int


@dataclass(frozen=True, slots=True)
class Mix:
    """The share of predictions with a sentiment."""

    sentiment: Sentiment
    served: float
    candidate: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """The accuracy on texts with a label, each once; differences are candidate minus served.

    `finding` holds however often one looks while labels come (stats/verdict.py); the interval is
    Tango's of 95 %, and `mcnemar_p` is exact: both are valid at one planned look.
    """

    texts: int
    both_right: int
    only_served_right: int
    only_candidate_right: int
    none_right: int
    served_accuracy: float | None
    candidate_accuracy: float | None
    difference: float | None
    difference_interval: Interval | None
    mcnemar_p: float | None
    always_valid_interval: Interval | None
    always_valid_p: float | None
    finding: str
    more_labels: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Shares `by_predictions` count a text as often as it was asked, the others once.

    A text with several answers counts, once, with the newest. Confidences are candidate minus
    served. Histograms have `CONFIDENCE_BINS` bins of equal width from 0 to 1, of texts.
    """

    predictions: int
    texts: int
    table: tuple[Cell, ...]
    agreement_by_predictions: float
    agreement: float
    agreement_interval: Interval | None
    kappa: float | None
    mix: tuple[Mix, ...]
    served_confidence: float  # by predictions
    candidate_confidence: float
    confidence_difference: float | None
    confidence_difference_interval: Interval | None
    served_histogram: tuple[int, ...]
    candidate_histogram: tuple[int, ...]
    labelled: Labelled

    @property
    def flips(self) -> tuple[Cell, ...]:
        """The cells in which the two differ, the most predictions first."""
        differing = [cell for cell in self.table if cell.served != cell.candidate]
        return tuple(sorted(differing, key=lambda cell: -cell.predictions))


@dataclass(frozen=True, slots=True)
class ServedBy:
    """The weights that answered a part of the traffic."""

    version: Version
    revision: str


_FINDINGS = {"v1_better": "served_better", "v2_better": "candidate_better"}


def compare(observations: Sequence[Observation]) -> Comparison:
    """Compare at least one observation."""
    once = newest_of_each_text(observations)
    by_predictions, by_texts = Counter[tuple[Sentiment, Sentiment]](), _pairs(once)
    served_confidence = candidate_confidence = 0.0
    for seen in observations:
        for sentiment, count in seen.served.counts.items():
            by_predictions[sentiment, seen.candidate.sentiment] += count
        served_confidence += seen.served.confidence_sum
        candidate_confidence += seen.candidate.confidence * seen.served.predictions
    predictions = by_predictions.total()
    differences = [seen.candidate.confidence - seen.served.confidence for seen in once]
    outcomes = _outcomes(once)
    statistics = compare_pairs(
        by_texts,
        ConfidenceDifferences(
            len(once), sum(differences), sum(difference**2 for difference in differences)
        ),
        outcomes,
    )
    agreeing = sum(not seen.is_flip for seen in once)
    return Comparison(
        predictions=predictions,
        texts=len(once),
        table=tuple(
            Cell(*pair, by_predictions[pair], by_texts[pair])
            for pair in product(SENTIMENTS, SENTIMENTS)
            if by_predictions[pair] or by_texts[pair]
        ),
        agreement_by_predictions=_diagonal(by_predictions) / predictions,
        agreement=statistics["agreement"],
        agreement_interval=wilson_interval(agreeing, len(once)),
        kappa=statistics["kappa"],
        mix=tuple(_mix(by_predictions)),
        served_confidence=served_confidence / predictions,
        candidate_confidence=candidate_confidence / predictions,
        confidence_difference=statistics["confidence_difference"],
        confidence_difference_interval=statistics["confidence_difference_interval"],
        served_histogram=_histogram(seen.served.confidence for seen in once),
        candidate_histogram=_histogram(seen.candidate.confidence for seen in once),
        labelled=_labelled(outcomes, statistics),
    )


def compare_each(observations: Sequence[Observation]) -> dict[ServedBy, Comparison]:
    """A comparison with each of the weights that answered, the most predictions first."""
    parts: dict[ServedBy, list[Observation]] = {}
    for seen in observations:
        served_by = ServedBy(seen.answered.version, seen.answered.revision)
        parts.setdefault(served_by, []).append(seen)
    compared = {served_by: compare(part) for served_by, part in parts.items()}
    return dict(sorted(compared.items(), key=lambda item: -item[1].predictions))


def surest_flips(observations: Sequence[Observation]) -> list[Observation]:
    """The texts whose answer changes, those first of which both models are the surest."""
    flips = [seen for seen in newest_of_each_text(observations) if seen.is_flip]
    return sorted(flips, key=lambda seen: (-seen.sureness, seen.served.newest_id))


def newest_of_each_text(observations: Iterable[Observation]) -> list[Observation]:
    newest: dict[str, Observation] = {}
    for seen in observations:
        known = newest.get(seen.logged.text)
        if known is None or seen.served.newest_id > known.served.newest_id:
            newest[seen.logged.text] = seen
    return list(newest.values())


def _pairs(once: Iterable[Observation]) -> Counter[tuple[Sentiment, Sentiment]]:
    return Counter((seen.served.sentiment, seen.candidate.sentiment) for seen in once)


def _diagonal(pairs: Counter[tuple[Sentiment, Sentiment]]) -> int:
    return sum(pairs[sentiment, sentiment] for sentiment in SENTIMENTS)


def _mix(pairs: Counter[tuple[Sentiment, Sentiment]]) -> Iterable[Mix]:
    total = pairs.total()
    for sentiment in SENTIMENTS:
        served = sum(pairs[sentiment, other] for other in SENTIMENTS)
        candidate = sum(pairs[other, sentiment] for other in SENTIMENTS)
        if served or candidate:
            yield Mix(sentiment, served / total, candidate / total)


def _histogram(confidences: Iterable[float]) -> tuple[int, ...]:
    bins = Counter(min(int(value * CONFIDENCE_BINS), CONFIDENCE_BINS - 1) for value in confidences)
    return tuple(bins[number] for number in range(CONFIDENCE_BINS))


def _outcomes(once: Iterable[Observation]) -> PairedOutcomes:
    right = Counter(
        (seen.served.sentiment == label, seen.candidate.sentiment == label)
        for seen in once
        if (label := seen.logged.label) is not None
    )
    return PairedOutcomes(
        both_right=right[True, True],
        only_v1_right=right[True, False],
        only_v2_right=right[False, True],
        none_right=right[False, False],
    )


def _labelled(outcomes: PairedOutcomes, statistics: dict[str, object]) -> Labelled:
    verdict = paired_verdict(outcomes)
    named = {
        "served_accuracy": "v1_accuracy",
        "candidate_accuracy": "v2_accuracy",
        "difference": "accuracy_difference",
        "difference_interval": "accuracy_difference_interval",
        **{name: name for name in ("mcnemar_p", "always_valid_interval", "always_valid_p")},
    }
    values: dict[str, object] = {name: statistics[source] for name, source in named.items()}
    return Labelled(
        texts=outcomes.labelled,
        both_right=outcomes.both_right,
        only_served_right=outcomes.only_v1_right,
        only_candidate_right=outcomes.only_v2_right,
        none_right=outcomes.none_right,
        finding=_FINDINGS.get(verdict.finding, verdict.finding),
        more_labels=None if verdict.more_labels is None else verdict.more_labels.v1,
        **values,  # type: ignore[arg-type]
    )
