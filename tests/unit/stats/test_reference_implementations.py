"""The statistics equal those of independent implementations, to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import betabinom, binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from core.types import SENTIMENTS
from stats.outcomes import ArmOutcomes, PairedOutcomes
from stats.paired import cohen_kappa, mcnemar_p_value
from stats.randomised import newcombe_interval
from stats.sequential import log_e_discordant, log_e_split
from stats.wilson import wilson_interval

COUNTS = [(0, 1), (3, 9), (46, 20), (93, 182), (1_500, 1_400)]
CLOSE = 1e-9


@pytest.mark.parametrize(("first", "second"), COUNTS)
def test_paired_statistics_equal_those_of_statsmodels(first: int, second: int) -> None:
    outcomes = PairedOutcomes(40, first, second, 17)
    expected = mcnemar([[40, first], [second, 17]], exact=True).pvalue
    assert mcnemar_p_value(outcomes) == pytest.approx(expected, rel=CLOSE)
    table = np.array([[50, first, 2], [second, 30, 4], [7, 5, 11]])
    labels = {
        (row, column): int(table[i, j])
        for i, row in enumerate(SENTIMENTS)
        for j, column in enumerate(SENTIMENTS)
    }
    assert cohen_kappa(labels) == pytest.approx(cohens_kappa(table).kappa, rel=CLOSE)


@pytest.mark.parametrize(("right", "wrong"), COUNTS)
def test_intervals_equal_those_of_statsmodels(right: int, wrong: int) -> None:
    labelled = right + wrong
    low, high = proportion_confint(right, labelled, method="wilson")
    interval = wilson_interval(right, labelled)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=CLOSE)
    v1, v2 = ArmOutcomes(300, 211), ArmOutcomes(labelled, right)
    difference = newcombe_interval(v1, v2)
    assert difference is not None
    expected = confint_proportions_2indep(right, labelled, 211, 300, method="newcomb")
    assert (difference.low, difference.high) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(("first", "second"), COUNTS[:-1])
def test_e_values_equal_likelihood_ratios_of_scipy(first: int, second: int) -> None:
    n = first + second
    fair = binom.logpmf(second, n, 0.5)
    mixed = betabinom.logpmf(second, n, 1, 1)
    assert float(log_e_discordant(first, second)) == pytest.approx(mixed - fair, abs=CLOSE)
    whole, _ = quad(lambda share: 2.0**n * share**second * (1 - share) ** first, 0, 1, epsrel=1e-12)
    assert float(log_e_discordant(first, second)) == pytest.approx(np.log(whole), abs=1e-7)
    split = betabinom.logpmf(second, n, 10, 90) - binom.logpmf(second, n, 0.1)
    assert float(log_e_split(first, second, 0.1)) == pytest.approx(split, abs=CLOSE)


# What `beta_binomial_log_mixture` of confseq 0.0.11 (Howard et al. 2021) returns,
# two-sided. Its package needs a compiler and Boost, so its results stand here. For x of n with a
# share q: s = x - qn, v = q (1 - q) n, g = q, h = 1 - q, v_opt = rho (l + log(1 + l)) with
# l = 2 log(1 / 0.05), and rho = 0.75 (q = 0.5) or 9.09 (q = 0.1).
OF_CONFSEQ = [
    # v1, v2, q = 0.5, q = 0.1
    (3, 9, 0.359189262905443, 2.2673215070934),
    (46, 20, 3.29897129937196, 4.46574126771987),
    (93, 182, 12.0238988143986, 200.375958443043),
    (8, 46, 12.659680240171, 37.6312057033242),
    (1_500, 1_400, -2.03681518608346, 1337.91194352531),
]


@pytest.mark.parametrize(("first", "second", "discordant", "split"), OF_CONFSEQ)
def test_e_values_equal_those_of_confseq(
    first: int, second: int, discordant: float, split: float
) -> None:
    assert float(log_e_discordant(first, second)) == pytest.approx(discordant, abs=CLOSE)
    assert float(log_e_split(first, second, 0.1)) == pytest.approx(split, abs=CLOSE)
