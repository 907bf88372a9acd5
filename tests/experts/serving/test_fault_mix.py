"""A mix of faults as text, and the fates that are drawn from it."""

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.delay import Delay, read_delay
from experts.serving.fault_server import MIXES, SHARES, FaultMix, read_mix
from experts.serving.fault_server.mix import HEALTHY
from sim.errors import UsageError

SECONDS = st.floats(0.0, 100.0)
ABOVE = st.floats(1e-6, 100.0)
DELAYS = st.one_of(
    st.builds(Delay, st.just("constant"), st.tuples(SECONDS)),
    st.builds(lambda pair: Delay("uniform", tuple(sorted(pair))), st.tuples(SECONDS, SECONDS)),
    st.builds(lambda pair: Delay("lognormal", tuple(sorted(pair))), st.tuples(ABOVE, ABOVE)),
    st.builds(Delay, st.just("exponential"), st.tuples(ABOVE)),
)
MIXED = st.builds(
    FaultMix,
    **dict.fromkeys(SHARES, st.just(0.0) | st.floats(0.0, 1 / len(SHARES))),
    delay=DELAYS,
    token_delay=DELAYS,
    stall_s=DELAYS,
    drip_s=SECONDS,
    retry_after_s=SECONDS,
    oversized_bytes=st.integers(0, 10**9),
    freezes=st.lists(st.tuples(SECONDS, SECONDS), max_size=3).map(tuple),
)


def messages(k):
    return [{"role": "system", "content": "drive"}, {"role": "user", "content": f"scene {k}"}]


# Text


@given(MIXED)
def test_a_mix_is_read_back_from_its_text(mix):
    assert read_mix(mix.text()) == mix


@given(DELAYS)
def test_a_delay_is_read_back_from_its_text(delay):
    assert read_delay(delay.text()) == delay


@given(st.text(max_size=40) | st.text("falusmid=0123456789.,:+-enx ", max_size=40))
def test_any_text_is_a_mix_or_one_clear_line(text):
    said = ""
    try:
        mix: FaultMix | None = read_mix(text)
    except UsageError as error:
        mix, said = None, str(error)
    assert isinstance(mix, FaultMix) or len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "known: full, mild, none"),
        ("fulll", "did you mean 'full'"),
        ("full,mild", "NAME=VALUE"),
        ("stall", "unknown fault mix 'stall'"),
        ("stall=", "NAME=VALUE"),
        ("stal=0.1", "did you mean 'stall'"),
        ("stall=much", "faults.stall = 'much'"),
        ("stall=2", "choose 0 to 1"),
        ("stall=nan", "choose 0 to 1"),
        ("stall=0.6,refusal=0.6", "add up to 1.2"),
        ("stall=0.1,stall=0.2", "set it once"),
        ("delay=soon", "lognormal:P50:P99"),
        ("delay=gauss:1", "lognormal:P50:P99"),
        ("delay=nan", "in seconds from 0"),
        ("delay=uniform:3:1", "LOW <= HIGH"),
        ("delay=lognormal:0:1", "above 0"),
        ("drip_s=-1", "choose 0 to 3,600"),
        ("oversized_bytes=2e12", "oversized_bytes"),
        ("freezes=10", "START:LENGTH"),
        ("freezes=-1:2", "choose 0 to 3,600"),
        ("no-such.yaml", "no-such.yaml"),
    ],
)
def test_bad_text_says_what_is_wrong_and_what_to_do(text, words):
    with pytest.raises(UsageError) as caught:
        read_mix(text)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_names_settings_and_files_say_the_same(tmp_path):
    text = "stall=0.01, server_error=0.05, delay=lognormal:0.05:0.5, freezes=10:2+30:5"
    mix = FaultMix(
        stall=0.01, server_error=0.05, delay=Delay("lognormal", (0.05, 0.5)), freezes=((10.0, 2.0), (30.0, 5.0))
    )
    file = tmp_path / "mix.yaml"
    file.write_text("stall: 0.01\nserver_error: 0.05\ndelay: lognormal:0.05:0.5\nfreezes: [[10, 2], [30, 5]]\n")
    assert read_mix(text) == read_mix(str(file)) == mix
    assert read_mix("none") == FaultMix()
    assert read_mix("full,stall=0,delay=0.2") == replace(MIXES["full"], stall=0.0, delay=Delay("constant", (0.2,)))
    assert all(MIXES["full"].shares.values())
    file.write_text("stall: 3\n")
    with pytest.raises(UsageError, match="choose 0 to 1"):
        read_mix(str(file))


# Fates


def test_shares_come_out_right():
    mix = MIXES["full"]
    counts = Counter(mix.fate(5, messages(k)).kind for k in range(5000))
    expected = mix.shares | {HEALTHY: 1 - sum(mix.shares.values())}
    assert counts.keys() == expected.keys()
    for kind, share in expected.items():
        assert abs(counts[kind] - 5000 * share) < 4 * math.sqrt(5000 * share * (1 - share)), kind


@pytest.mark.parametrize(
    ("delay", "quantiles"),
    [
        (Delay("constant", (0.2,)), {0.5: 0.2, 0.99: 0.2}),
        (Delay("uniform", (0.1, 0.3)), {0.5: 0.2, 0.99: 0.298}),
        (Delay("lognormal", (0.05, 0.5)), {0.5: 0.05, 0.99: 0.5}),
        (Delay("exponential", (0.1,)), {0.5: 0.1 * math.log(2), 0.99: 0.1 * math.log(100)}),
    ],
)
def test_delays_have_their_quantiles(delay, quantiles):
    mix = FaultMix(delay=delay)
    drawn = np.array([mix.fate(0, messages(k)).delay_s for k in range(5000)])
    for share, seconds in quantiles.items():
        assert delay.at(share) == pytest.approx(seconds)
        below = np.mean(drawn <= seconds * (1 + 1e-9))
        assert delay.kind == "constant" or abs(below - share) < 4 * math.sqrt(share * (1 - share) / 5000)
    assert (drawn >= 0).all()
    assert np.isfinite(drawn).all()


def test_a_fate_depends_on_seed_question_and_retry_and_on_nothing_else():
    mix = MIXES["full"]
    fates = [[mix.fate(seed, messages(k), retry) for k in range(200)] for seed, retry in ((0, 0), (0, 1), (1, 0))]
    assert fates[0] == [mix.fate(0, messages(k), 0) for k in reversed(range(200))][::-1]
    assert fates[0] != fates[1] != fates[2] != fates[0]
    assert [fate.choice for fate in fates[0]] == [fate.choice for fate in fates[1]]  # a retry gets the same answer
    program = (
        "import sys, json; from experts.serving.fault_server import MIXES\n"
        "asked = json.load(sys.stdin)\n"
        "print([str(MIXES['full'].fate(0, m)) for m in asked])"
    )
    asked = json.dumps([messages(k) for k in range(200)])
    done = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([str(fate) for fate in fates[0]])
