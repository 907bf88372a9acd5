"""Random draws inside kernels are NumPy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.rng import next_64, next_below, next_double, next_normal, next_pair, seeded_stream, stream_of

DRAWS = st.lists(st.sampled_from(["random", "integers", "choice", "pair", "normal", "uint64"]), min_size=1, max_size=60)


@settings(deadline=None)
@given(st.integers(0, 2**63), DRAWS, st.integers(1, 2**32 - 1))
def test_any_sequence_of_draws_equals_numpys(seed, draws, bound):
    generator = np.random.Generator(np.random.PCG64(seed))
    stream = seeded_stream(seed)
    for kind in draws:
        theirs, ours = {
            "random": lambda: (generator.random(), next_double(stream)),
            "integers": lambda: (generator.integers(bound), next_below(stream, bound)),
            "choice": lambda: (generator.choice(bound % 50 + 1), next_below(stream, bound % 50 + 1)),
            "pair": lambda: (
                tuple(generator.choice(bound % 9_999 + 2, 2, replace=False)),
                next_pair(stream, bound % 9_999 + 2),
            ),
            "normal": lambda: (generator.normal(), next_normal(stream)),
            "uint64": lambda: (generator.bit_generator.random_raw(), int(next_64(stream))),
        }[kind]()
        assert theirs == ours
    np.testing.assert_array_equal(stream_of(generator)[:4], stream[:4])


def test_the_tail_of_the_normal_distribution_is_numpys():
    """Many draws reach every branch of the ziggurat, the tail beyond 3.65 too."""
    generator, stream = np.random.Generator(np.random.PCG64(7)), seeded_stream(7)
    theirs = generator.normal(size=200_000)
    ours = np.array([next_normal(stream) for _ in range(200_000)])
    assert np.abs(theirs).max() > 3.7
    np.testing.assert_array_equal(theirs, ours)


def test_pairs_of_few_numbers_are_numpys():
    """Few numbers meet often, which is the other branch of Floyd's algorithm."""
    generator, stream = np.random.Generator(np.random.PCG64(3)), seeded_stream(3)
    for count in (2, 3, 4) * 200:
        assert tuple(generator.choice(range(count), size=2, replace=False)) == next_pair(stream, count)


def test_other_generators_are_refused():
    with pytest.raises(ValueError, match="MT19937"):
        stream_of(np.random.Generator(np.random.MT19937(0)))
