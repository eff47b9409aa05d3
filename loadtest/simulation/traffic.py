"""Simulated traffic of a rollout: counts of both arms at every look of each step.

Requests come by a daily rhythm and by a load that is autocorrelated. Errors come in bursts, and
batch jobs slow everything: both arms are hit alike. Subjects are few and unequally busy; each has
sentiments, latencies and failures of its own, and stays with its arm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from rollout.looks import look_seconds
from stats.exceedance import GROUPS

HOUR, DAY, WEEK = 3_600.0, 86_400.0, 604_800.0
STEPS = ((HOUR, 0.05), (DAY, 0.25), (WEEK, 0.5))
TEXTS_PER_SECOND = 4.0
MIX = np.array([0.3, 0.1, 0.6])
# The intra-class correlation of a subject's sentiments.
CORRELATION = 0.1
LATENCY_EDGES = np.geomspace(5.0, 500.0, 61)
LATENCIES = np.sqrt(LATENCY_EDGES[1:] * LATENCY_EDGES[:-1])
MEDIAN_MS = 20.0
# Latencies are judged at every tenth look: a histogram each is much to simulate.
LATENCY_LOOKS = 10

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Challenge:
    """The challenger's differences from the champion, and the errors that hit both."""

    errors: float = 0.002
    error_bursts: bool = True
    more_errors: float = 0.0
    slower: float = 1.0
    mix: tuple[float, float, float] = (0.3, 0.1, 0.6)
    subjects: int = 1_000


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Counts until each look. Arms are champion and challenger, in this order.

    Their axes: arm, look, group, and failed and answered, or sentiment, or bin. Latencies have
    every tenth look only.
    """

    began: float
    seconds: Array
    failures: Array
    sentiments: Array
    latencies: Array


def rollout_steps(random: np.random.Generator, challenge: Challenge) -> Iterator[StepCounts]:
    """The steps of one rollout."""
    activity = random.lognormal(0, 1.3, challenge.subjects)
    activity /= activity.sum()
    own_mix = random.dirichlet(MIX * (1 / CORRELATION - 1), challenge.subjects)
    own_latency = random.normal(0, 0.25, challenge.subjects)
    own_failures = random.gamma(4, 1 / 4, challenge.subjects)
    hashed, groups = (
        random.random(challenge.subjects),
        random.integers(GROUPS, size=challenge.subjects),
    )
    began = 0.0
    for length, share in STEPS:
        seconds = np.fromiter(look_seconds(length), dtype=np.float64)
        arms = (hashed < share).astype(int)
        cells = arms * GROUPS + groups
        weight = np.bincount(cells, activity, 2 * GROUPS)

        mean = partial(_means, cells, activity)
        between = np.diff(seconds, prepend=0.0)
        load, rate = _load(random, began + seconds, between)
        texts = random.poisson(TEXTS_PER_SECOND * (rate * between)[:, None] * weight)
        mix = np.stack([mean(own_mix[:, cell]) for cell in range(3)], axis=1)
        mix[GROUPS:] *= np.array(challenge.mix) / MIX
        rhythm = 1 + 0.15 * np.sin(2 * np.pi * (began + seconds) / DAY)
        mixes = mix[None] * np.stack([rhythm, np.ones_like(rhythm), 1 / rhythm], axis=1)[:, None]
        mixes[:, weight == 0] = 1.0
        mixes /= mixes.sum(axis=-1, keepdims=True)
        sentiments = random.multinomial(texts, mixes).reshape(-1, 2, GROUPS, 3)

        chances = _error_chance(random, challenge, between)[:, None] * mean(own_failures)
        chances[:, GROUPS:] += challenge.more_errors
        failed = random.binomial(texts, chances.clip(0, 1))
        failures = np.stack([failed, texts - failed], axis=-1).reshape(-1, 2, GROUPS, 2)

        latency = MEDIAN_MS * np.exp(mean(own_latency))
        latency[GROUPS:] *= challenge.slower
        whole = slice(None, len(seconds) // LATENCY_LOOKS * LATENCY_LOOKS)
        many = texts[whole].reshape(-1, LATENCY_LOOKS, 2 * GROUPS).sum(axis=1)
        loads = load[whole].reshape(-1, LATENCY_LOOKS)[:, 0]
        edges = np.log(LATENCY_EDGES / (latency[None, :, None] * loads[:, None, None])) / 0.4
        below = ndtr(edges)
        below[..., 0], below[..., -1] = 0.0, 1.0
        latencies = random.multinomial(many, np.diff(below, axis=-1))
        yield StepCounts(
            began,
            seconds,
            _until_each_look(failures),
            _until_each_look(sentiments),
            _until_each_look(latencies.reshape(-1, 2, GROUPS, len(LATENCIES))),
        )
        began += length


def _means(cells: NDArray[np.int64], activity: Array, values: Array) -> Array:
    """The mean of the subjects' values in each cell, by their activity."""
    weight = np.bincount(cells, activity, 2 * GROUPS)
    return np.bincount(cells, activity * values, 2 * GROUPS) / np.maximum(weight, 1e-12)


def _until_each_look(counts: NDArray[np.int64]) -> Array:
    return np.moveaxis(np.cumsum(counts, axis=0, dtype=np.float64), 1, 0)


def _load(random: np.random.Generator, times: Array, between: Array) -> tuple[Array, Array]:
    """How much slower both arms answer, and how many texts come, until each look."""
    # An autoregressive load whose memory is half an hour; batch jobs come every few hours.
    kept = np.exp(-between / 1_800)
    noise = random.normal(0, 1, len(times)) * np.sqrt(1 - kept**2)
    level = np.empty_like(times)
    last = float(random.normal())
    for number, (share, news) in enumerate(zip(kept, noise, strict=True)):
        level[number] = last = share * last + news
    day = np.sin(2 * np.pi * times / DAY)
    job = random.random(len(times)) < 0.1
    return np.exp(0.4 * level + 0.2 * day) * (1 + job), np.exp(0.3 * level) * (1 + 0.6 * day)


def _error_chance(random: np.random.Generator, challenge: Challenge, between: Array) -> Array:
    """The chance that a text fails, until each look; bursts of two minutes, one in six hours."""
    chance = np.full(len(between), challenge.errors)
    if challenge.error_bursts:
        is_hit = random.random(len(between)) < 1 - np.exp(-between / (6 * HOUR))
        part = np.minimum(1, random.exponential(120, len(between)) / between)
        chance = chance + is_hit * part * random.uniform(0.05, 0.5, len(between))
    return chance
