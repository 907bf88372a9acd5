"""Confidence intervals: the only place that computes them.

The training seed is the unit of replication. A claim about a method is an interval over training seeds (`t_interval`,
`paired_difference`); the episodes of one policy, or the answers of one expert, are a rate with Wilson's interval
(`wilson`, `Rate`). Where no distribution can be assumed, a median over seeds has an interval of order statistics
(`median_interval`), and any other statistic, such as a percentile, a bootstrap interval (`bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads scipy.stats, which takes most of a second, at its first use

LEVEL = 0.95
"""Confidence level of every interval that names no other."""
NAN = float("nan")


class MeanInterval(NamedTuple):
    """A mean over training seeds with its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MedianInterval:
    """A median over training seeds with its interval, made of order statistics."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of two methods over the training seeds that they share."""

    mean: float
    low: float
    high: float
    p_value: float
    """Of the two-sided paired t-test."""

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Rate:
    """A share of trials, such as episodes, with its 95 % Wilson interval, all in [0, 1]."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share; nan where there is no trial."""
        return self.count / self.total if self.total else NAN

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the Wilson interval; nan where there is no trial."""
        return wilson(self.count, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        low, high = self.interval
        return {"count": self.count, "total": self.total, "value": self.value, "low": low, "high": high}


def wilson(count: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson 1927, eq. 4; no continuity correction).

    Args:
        count: Successes, 0 to `total`.
        total: Independent trials.
        level: Confidence level in (0, 1).
    Returns:
        Bounds of the proportion in [0, 1]; nan where `total` is 0.
    Raises:
        ValueError: `count` is negative or above `total`.
    """
    if not total:
        return NAN, NAN
    low, high = scipy.stats.binomtest(count, total).proportion_ci(level, method="wilson")
    return float(low), float(high)


def t_interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> MeanInterval:
    """Mean over training seeds with Student's t-interval.

    Args:
        values: One value per training seed, float (S,).
        level: Confidence level in (0, 1).
    Returns:
        Mean and bounds. The bounds are nan for fewer than two values, the mean is nan for none.
    """
    if not len(values):
        return MeanInterval(NAN, NAN, NAN)
    mean = float(np.mean(values))
    if len(values) < 2:
        return MeanInterval(mean, NAN, NAN)
    half = float(scipy.stats.t.ppf(0.5 + level / 2, len(values) - 1) * scipy.stats.sem(values))
    return MeanInterval(mean, mean - half, mean + half)


def median_interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> MedianInterval:
    """Median over training seeds with an interval of order statistics.

    The k-th smallest and the k-th largest of n values enclose the median with probability 1 - 2 P(Bin(n, 1/2) < k). No
    distribution is assumed, and a run that was cut off may count as "at least".

    Args:
        values: One value per training seed, float (S,), S >= 1.
        level: Least confidence level in (0, 1); few values (S < 6 at 0.95) do not reach it.
    Returns:
        The median and two of the values as bounds.
    """
    ordered = np.sort(values)
    k = max(int(scipy.stats.binom.ppf(0.5 - level / 2, len(ordered), 0.5)), 1)
    return MedianInterval(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[-k]))


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, level: float = LEVEL
) -> PairedDifference:
    """Mean of `a - b` over shared training seeds, with a t-interval and the p-value of the two-sided paired t-test.

    Args:
        a: One value per training seed of one method, float (S,).
        b: The values of the other method for the same seeds in the same order, float (S,).
        level: Confidence level in (0, 1).
    Returns:
        Bounds and p-value are nan for fewer than two seeds. Where all differences are equal, the interval has no width
        and the p-value is 1 (no difference) or 0.
    Raises:
        ValueError: `a` and `b` differ in length.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values: a paired difference needs the same seeds in both")
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    mean, low, high = t_interval(differences, level)
    if len(differences) < 2:
        return PairedDifference(mean, low, high, NAN)
    if np.ptp(differences) == 0:
        return PairedDifference(mean, mean, mean, float(mean == 0))
    statistic = mean / float(scipy.stats.sem(differences))
    return PairedDifference(mean, low, high, float(2 * scipy.stats.t.sf(abs(statistic), len(differences) - 1)))


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., Any],
    level: float = LEVEL,
    seed: int = 0,
    resamples: int = 300,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of one sample.

    Args:
        values: The sample, float (N,).
        statistic: Called as `statistic(sample, axis=k)` on an array of samples, such as `np.mean`.
        level: Confidence level in (0, 1).
        seed: Of the resampling: the same seed gives the same interval.
        resamples: Number of resamples; 300 keep the Monte Carlo error of a 95 % bound far below its width.
    Returns:
        Bounds of the statistic. Both are its value where the sample holds one value only, which no resample changes.
    Raises:
        ValueError: The sample is empty.
    """
    sample = np.asarray(values, dtype=float)
    if not len(sample):
        raise ValueError("a bootstrap interval needs at least one value")
    if sample.min() == sample.max():
        value = float(statistic(sample, axis=-1))
        return value, value
    found = scipy.stats.bootstrap(
        (sample,),
        statistic,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
