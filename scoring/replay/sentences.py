"""What a replay found, in words: for the terminal, and for the report."""

from __future__ import annotations

from collections.abc import Iterator

from core.printable import printable
from scoring.replay.comparison import Comparison, Labelled
from scoring.replay.result import FlippedText, Read, Replay, Speed
from stats.outcomes import Interval

SHOWN_CHARACTERS = 160
_FINDINGS = {
    "served_better": "What was served is more accurate than the candidate.",
    "candidate_better": "The candidate is more accurate than what was served.",
    "no_difference_yet": "No difference in accuracy is certain yet.",
}
NO_LABELS = "None of these texts has a true label, so the accuracies cannot be compared."


def finding(labelled: Labelled) -> str:
    """What the labels say, as a sentence or two."""
    if not labelled.texts:
        return NO_LABELS
    sentence = _FINDINGS[labelled.finding]
    if labelled.finding == "no_difference_yet" and labelled.more_labels:
        sentence += (
            f" If the accuracies seen here were the true ones, about {labelled.more_labels:,} more "
            "labels would settle it."
        )
    return sentence


def sample(read: Read) -> str:
    """How many texts and predictions are compared, and of how many."""
    if not read.is_sample:
        return (
            f"All {read.sampled_texts:,} different texts with their {read.predictions:,} "
            "predictions are compared."
        )
    return (
        f"{read.sampled_texts:,} of about {read.different_texts:,} different texts are compared, a "
        f"uniform sample of {read.sampled_share:.2%}, with all of their predictions: "
        f"{read.sampled_predictions:,} of {read.predictions:,}."
    )


def percent(share: float | None, digits: int = 2) -> str:
    return "-" if share is None else f"{share:.{digits}%}"


def points(difference: float | None) -> str:
    """A difference of shares."""
    return "-" if difference is None else f"{100 * difference:+.2f} points"


def interval(found: Interval | None) -> str:
    if found is None:
        return "-"
    return f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"


def lines(replay: Replay) -> Iterator[str]:
    """The result for a terminal, line by line."""
    yield f"{replay.candidate.tag}, {replay.candidate.identity}"
    yield sample(replay.read)
    if replay.read.without_text:
        yield f"{replay.read.without_text:,} other predictions have no text"
    yield from _answers(replay.overall)
    yield from _accuracy(replay.overall.labelled)
    if len(replay.parts) > 1:
        for part in replay.parts:
            by, compared = part.served_by, part.comparison
            share = percent(compared.agreement_by_predictions)
            counted = f"{compared.predictions:,} predictions, {share} agree"
            yield f"served by {by.version} {by.revision}: {counted}"
    yield from _speed(replay.speed)
    for flip in replay.flipped_texts:
        yield _flip(flip)


def _answers(overall: Comparison) -> Iterator[str]:
    by_predictions, by_texts = overall.agreement_by_predictions, overall.agreement
    yield f"agreement: {percent(by_predictions)} of predictions, {percent(by_texts)} of texts"
    for cell in overall.flips:
        counted = f"{cell.predictions:,} predictions, {cell.texts:,} texts"
        yield f"  {cell.served} -> {cell.candidate}: {counted}"
    for mix in overall.mix:
        shares = f"{percent(mix.served)} served, {percent(mix.candidate)} candidate"
        yield f"{mix.sentiment}: {shares}"


def _accuracy(labelled: Labelled) -> Iterator[str]:
    if labelled.texts:
        yield (
            f"accuracy on {labelled.texts:,} labelled texts: served "
            f"{percent(labelled.served_accuracy)}, candidate "
            f"{percent(labelled.candidate_accuracy)}, difference {points(labelled.difference)} "
            f"(95 %: {interval(labelled.difference_interval)})"
        )
    yield finding(labelled)


def _speed(speed: Speed) -> Iterator[str]:
    timings = [("candidate", speed.candidate, speed.candidate_cost_per_million)]
    if speed.served is not None and speed.served_cost_per_million is not None:
        timings.append(("served", speed.served, speed.served_cost_per_million))
    for name, timing, cost in timings:
        yield (
            f"{name}: a text takes {timing.p50_ms:.2f} ms (p95 {timing.p95_ms:.2f} ms), a million "
            f"predictions cost {cost:.3f} at {speed.price_per_core_hour} a core hour"
        )
    if speed.served is None:
        yield "the model that served most is not in the store here, so it is not timed"


def _flip(flip: FlippedText) -> str:
    text = printable(" ".join(flip.text.split()))
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]} ..."
    return (
        f"  {flip.served} {flip.served_confidence:.2f} -> {flip.candidate} "
        f"{flip.candidate_confidence:.2f}, asked {flip.predictions:,}: {text}"
    )
