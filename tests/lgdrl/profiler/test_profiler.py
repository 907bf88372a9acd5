"""The profiler's figures are right: against known delays, by hand, and against the plain simulator."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from scipy import stats

import sim
from experts import registry
from experts.driving import run_episodes
from experts.llm.timeline import RequestTimeline
from experts.provider import Decision, PolicyProvider, Status
from experts.serving.fault_server import FaultServer, read_mix
from lgdrl.profiler import gate
from lgdrl.profiler.command import read_load
from lgdrl.profiler.config import ProfileConfig
from lgdrl.profiler.frequency import finest, with_frequency
from lgdrl.profiler.lateness import Late, LatencyOutcome
from lgdrl.profiler.load import LoadConfig, LoadRun, TimedQuery, arrivals, run_load
from lgdrl.profiler.metrics import distribution, summarise
from lgdrl.profiler.safety import STALL_BEGINS_S, LatencySafetyConfig, budget, curve, stalled
from lgdrl.profiler.scenes import stream
from lgdrl.profiler.stall import FreezableExpert, StallConfig, read_recovery
from lgdrl.seeds import LATE_SEED
from lgdrl.statistics import Rate
from sim.config import resolve
from sim.errors import UsageError

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def queries():
    return stream("lane-change", 400)


class Delayed(PolicyProvider):
    """An expert that thinks for known times, one after the other."""

    name = "delayed"

    def __init__(self, seconds):
        self.seconds = iter(seconds)

    def decide(self, contexts):
        until = time.perf_counter() + next(self.seconds)
        time.sleep(max(0.0, until - time.perf_counter()))
        return [Decision(action=1)]


def row(query, intended=0.0, latency=0.1, action=1, car=0, status=Status.OK):
    return TimedQuery(query, car, intended, intended, intended + latency, status, action, 10, 0.0, False, (), None)


def first_tokens(delay, queries):
    """Times to first token as the profiler sees them, and the delays that the server drew: the messages decide."""
    mix = read_mix(f"delay={delay}")
    with FaultServer(mix=mix, seed=1) as server:
        options = {"model": "scripted", "client": {"base_url": server.url}, "stream": "always"}
        with registry.make("llm", "lane-change", options, 0) as expert:
            run = run_load(expert, LoadConfig(), queries, 0.5, RNG(0))
        drawn = [mix.fate(1, seen.body["messages"]).delay_s for seen in server.asked]
    return summarise("closed", False, [run], 0, 0.5).latencies["ttft"], drawn


@pytest.mark.slow  # it times: alone on the machine
def test_percentiles_of_a_served_distribution_are_within_two_per_cent_or_a_millisecond(queries, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    bare, _ = first_tokens("0", queries[:100])  # what client, loopback and server take by themselves
    found, drawn = first_tokens("uniform:0.01:0.06", queries[100:400])
    print("bare", bare.percentiles)
    for p in (50, 90, 95, 99):
        known = float(np.percentile(drawn, p, method="inverted_cdf"))
        assert found.percentiles[f"p{p}"] - bare.p50 == pytest.approx(known, rel=0.02, abs=0.001), p


def test_an_open_load_shows_the_stall_that_a_closed_one_hides(queries):
    thinking = [0.001] * 60
    thinking[20] = 0.4
    closed = run_load(Delayed(thinking), LoadConfig(), queries[:60], 0.5, RNG(0))
    assert sum(one.latency > 0.05 for one in closed.rows) == 1

    # the same expert serves one query at a time: those that come meanwhile wait
    class Single(Delayed):
        lock = threading.Lock()

        def decide(self, contexts):
            with self.lock:
                return super().decide(contexts)

    opened = run_load(Single(thinking), LoadConfig(kind="constant", rate=100.0), queries[:60], 0.5, RNG(0))
    late = sum(one.latency > 0.05 for one in opened.rows)
    assert late > 25  # of 0.4 s at 100 per second


def test_figures_by_hand(queries):
    scenes = queries[:6]
    rows = [
        row(one, k * 0.5, latency)
        for k, (one, latency) in enumerate(zip(scenes, (0.1, 0.6, 0.7, 0.2, 0.9, 0.1), strict=True))
    ]
    cell = summarise("hand", True, [LoadRun(rows, 3.0, 3.0, 1)], 0, 0.5)
    assert cell.deadline.missed == 0.5
    assert cell.deadline.runs == {"1": 1, "2": 1}
    assert cell.deadline.longest_run == 2
    speeds = np.array([one.speed for one in scenes])
    assert cell.deadline.staleness.mean == pytest.approx(np.mean(speeds * [0.1, 0.6, 0.7, 0.2, 0.9, 0.1]))
    assert cell.guided_km == pytest.approx(speeds.sum() * 0.5 / 1000)
    assert cell.tokens == 60
    good = sum(one.accepted and one.latency <= 0.5 for one in rows)
    assert cell.deadline.goodput == pytest.approx(good / 2.9)


def test_a_distribution_says_what_scipy_says_and_leaves_out_what_it_cannot_know():
    sample = stats.lognorm(0.5, scale=0.1).rvs(5000, random_state=0)
    found = distribution(sample.tolist())
    for p in (50, 90, 95, 99, 99.9):
        assert found.percentiles[f"p{p:g}"] == pytest.approx(np.percentile(sample, p), rel=0.01)
    low, high = found.intervals["p95"]
    assert low < np.percentile(sample, 95) < high
    assert distribution([0.1] * 50).percentiles["p99"] is None
    assert distribution([]) is None


def test_parts_add_up_to_the_latency():
    line = RequestTimeline(10.0, built=10.1, started=10.3, sent=10.3, first_byte=10.8, done=11.4, end=11.5, acted=4)
    line.heard = [(10.9, 2), (11.0, 6), (11.3, 9)]
    assert sum(line.parts().values()) == pytest.approx(1.5)
    assert line.first_token == 10.9
    assert line.first_action == 11.0
    assert line.gaps == pytest.approx([0.1, 0.3])


def test_without_latency_an_environment_that_runs_on_is_the_plain_scenario():
    for scenario in ("lane-change", "highway-fast-v0"):
        envs = sim.make_vec(scenario, 8)
        seeds = range(LATE_SEED, LATE_SEED + 8)
        plain = run_episodes(envs, registry.make("rule", scenario, {}, 0), list(seeds))
        envs.close()
        late = Late(registry.make("rule", scenario, {}, 0), scenario, {})
        for policy in ("pause", "hold-last", "rule", "unchecked"):
            found = late.run(policy, "0 D", lambda rng, episode, now: 0.0, list(seeds))
            assert found.success.count == sum(one["outcome"] == "success" for one in plain)
            assert found.crash.count == sum(one["outcome"] == "crash" for one in plain)
            assert found.decisions == pytest.approx(sum(one["steps"] for one in plain), abs=8)


def test_an_environment_that_pauses_loses_time_and_nothing_else():
    late = Late(registry.make("rule", "lane-change", {}, 0), "lane-change", {})
    settings = LatencySafetyConfig(episodes=4, latencies=(0.0,), policies=("pause", "hold-last"))
    paused, plain, measured = curve(late, settings, 0.5, [3.0, 5.0])
    assert (paused.success, paused.decisions, paused.late) == (plain.success, plain.decisions, 0.0)
    assert paused.latency == measured.latency == "measured"
    assert 3.0 * paused.decisions / 4 < paused.waited_s < 5.0 * paused.decisions / 4
    assert measured.late == 1.0  # of the decisions that came


def test_lateness_harms_and_the_rule_in_its_place_does_not():
    late = Late(registry.make("rule", "lane-change", {}, 0), "lane-change", {})
    settings = LatencySafetyConfig(episodes=12, latencies=(0.0, 4.0), policies=("hold-last", "rule", "unchecked"))
    found = {(one.policy, one.latency): one for one in curve(late, settings, 0.5, None)}
    assert found["hold-last", "0 D"].success.count >= 11
    assert found["unchecked", "4 D"].success.count <= 2
    assert found["rule", "4 D"].success.count >= 11
    assert found["rule", "4 D"].late > 0.9
    seconds = budget(list(found.values()), "unchecked", 0.05)
    assert seconds is not None
    assert 0 < seconds < 2.0
    assert budget(list(found.values()), "rule", 0.05) is None or found["rule", "4 D"].success.count == 11


def test_a_stall_holds_back_what_is_due_in_it_and_is_no_point_of_the_curve():
    begin = float(RNG(LATE_SEED).uniform(0.0, STALL_BEGINS_S))

    def usual(rng, episode, now):
        return 0.2

    waits = [stalled(usual, 3.0, RNG(0), LATE_SEED, begin + offset) for offset in (-0.3, -0.1, 1.0, 2.7, 2.9, 3.1)]
    assert waits == pytest.approx([0.2, 3.1, 2.0, 0.3, 0.2, 0.2])
    late = Late(registry.make("rule", "lane-change", {}, 0), "lane-change", {})
    settings = LatencySafetyConfig(episodes=4, latencies=(0.0,), policies=("hold-last", "rule"))
    found = curve(late, settings, 0.5, [0.01], stall_s=4.0)
    assert [one.latency for one in found] == 2 * ["0 D", "measured", "stall 4 s"]
    assert [one.injected for one in found] == 2 * [True, False, False]
    assert [one.late > 0 for one in found] == 2 * [False, False, True]


def test_a_stall_by_hand(queries):
    period, frozen = 0.5, 0.9
    moments = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    done = [0.1, 0.6, 2.0, 2.1, 2.2, 2.8, 3.1]  # the thaw is at 1.9
    rows = [row(query, moment, at - moment) for query, moment, at in zip(queries[:7], moments, done, strict=True)]
    found = read_recovery(rows, frozen, StallConfig(seconds=1.0, cars=1), period)
    assert (found.missed, found.queries, found.longest_run) == (2, 5, 2)
    assert found.before_s == pytest.approx(0.1)
    assert found.worst_s == pytest.approx(1.0)
    assert found.recovered_s == pytest.approx(2.1 - 1.9)
    assert found.blind_m == pytest.approx(period * sum(query.speed for query in queries[2:4]))
    assert read_recovery(rows[:4], frozen, StallConfig(seconds=1.0, cars=1), period).recovered_s is None


def test_a_frozen_expert_decides_nothing_until_the_thaw(queries):
    frozen = FreezableExpert(Delayed([0.0] * 99))
    begin = time.perf_counter()
    frozen.freeze(0.2)
    assert frozen.decide([queries[0].context])[0].action == 1
    assert time.perf_counter() - begin >= 0.2


def test_an_expert_may_have_settings_of_its_own():
    config = resolve(ProfileConfig(), {"experts": {"slow": {"settings": {"decisions": 3, "safety": {"episodes": 1}}}}})
    settings = config.of("slow", config.experts["slow"])
    assert (settings.decisions, settings.safety.episodes, settings.repeats) == (3, 1, config.repeats)
    for bad, said in (({"seed": 1}, "seed"), ({"decisions": 0}, "decisions = 0")):
        with pytest.raises(UsageError, match=said) as caught:
            resolve(ProfileConfig(), {"experts": {"slow": {"settings": bad}}})
        assert "\n" not in str(caught.value)


def test_the_budget_is_read_off_the_curve():
    def outcome(seconds, count):
        rate = Rate(count, 100)
        return LatencyOutcome("hold-last", "x", seconds, rate, rate, 0, 0, 1, 0, 0, 0, 0)

    rows = [outcome(0.0, 100), outcome(0.5, 98), outcome(1.0, 88)]
    assert budget(rows, "hold-last", 0.05) == pytest.approx(0.5 + 0.5 * 3 / 10)
    assert budget(rows[:2], "hold-last", 0.05) is None
    assert budget([outcome(0.0, 3), outcome(0.5, 0)], "hold-last", 0.05) == 0.0


def test_frequencies_keep_the_seconds_of_a_task():
    config = with_frequency("lane-change", {}, 10.0)
    assert config == {"decision_frequency": 10.0, "time_limit": 600}
    assert finest("lane-change", {})[1] == 10
    assert finest("highway-v0", {})[1] == 15
    with pytest.raises(UsageError, match="decision_frequency"):
        sim.make("lane-change", config=with_frequency("lane-change", {}, 3.0))


def test_schedules(tmp_path):
    clock = arrivals(LoadConfig(kind="clock", cars=2), 5, 0.5, RNG(0))
    assert clock == [(0.0, 0), (0.0, 1), (0.5, 0), (0.5, 1), (1.0, 0)]
    poisson = [moment for moment, _ in arrivals(LoadConfig(kind="poisson", rate=50.0), 4000, 0.5, RNG(0))]
    assert stats.kstest(np.diff(poisson), "expon", args=(0, 1 / 50)).pvalue > 0.01
    trace = tmp_path / "trace.txt"
    trace.write_text("0.0\n0.25\n1.0\n")
    moments = [moment for moment, _ in arrivals(LoadConfig(kind="trace", trace=str(trace)), 5, 0.5, RNG(0))]
    assert moments[:3] == [0.0, 0.25, 1.0]
    assert moments == sorted(moments)
    trace.write_text("0.5\n0.2\n")
    with pytest.raises(UsageError, match=r"line 2: '0\.2'"):
        arrivals(LoadConfig(kind="trace", trace=str(trace)), 5, 0.5, RNG(0))


def test_a_load_that_outruns_the_expert_is_called_saturated(queries):
    lock = threading.Lock()

    class Slow(PolicyProvider):
        name = "slow"

        def decide(self, contexts):
            with lock:
                time.sleep(0.01)
            return [Decision(action=1)]

    fast = run_load(Slow(), LoadConfig(kind="constant", rate=300.0), queries[:120], 0.5, RNG(0))
    calm = run_load(Slow(), LoadConfig(kind="constant", rate=50.0), queries[:60], 0.5, RNG(0))
    assert fast.saturated
    assert not calm.saturated


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("closed:x", "--load 'closed:x'"),
        ("sometimes:3", "--load 'sometimes:3'"),
        ("constant:", "--load 'constant:'"),
    ],
)
def test_bad_loads_are_one_line(words, said):
    with pytest.raises(UsageError, match=said) as caught:
        read_load(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"decisions": 0},
        {"scenarios": []},
        {"loads": [{"kind": "poisson"}]},
        {"safety": {"latencies": [1.0]}},
        {"frequencies": [0.0]},
        {"frequencies": [2.0, 2.0]},
        {"stall": {"seconds": -1.0}},
    ],
)
def test_bad_settings_are_one_line(bad):
    with pytest.raises(UsageError) as caught:
        resolve(ProfileConfig(), bad, "profile")
    assert "\n" not in str(caught.value)


def profile_with(p95, miss, goodput=10.0):
    percentiles = {"p50": 0.1, "p90": 0.2, "p95": p95, "p99": None}
    cell = {
        "load": "closed x1", "queries": 10, "tokens": 100, "deadline": {"missed": miss, "goodput": goodput},
        "latencies": {"e2e": {"percentiles": percentiles}, "ttft": None, "ttfa": None},
    }  # fmt: skip
    expert = {"name": "llm", "cells": [cell], "latency_budget_s": {}}
    return {"scenarios": [{"label": "lane-change", "experts": [expert]}]}


def test_the_gate_fails_for_what_its_rules_say_and_nothing_else():
    rules = gate.parse_rules("p95=+10%,miss=+1pt,goodput=-5%")
    same = profile_with(0.2, 0.05)
    assert not any(change.failed for change in gate.compare(same, same, rules))
    assert not any(change.failed for change in gate.compare(same, profile_with(0.21, 0.055), rules))
    worse = {change.metric for change in gate.compare(same, profile_with(0.23, 0.07, 9.0), rules) if change.failed}
    assert worse == {"p95", "miss", "goodput"}
    endless, ends = profile_with(0.2, 0.05), profile_with(0.2, 0.05)
    for one, seconds in ((endless, None), (ends, 0.3)):
        one["scenarios"][0]["experts"][0]["latency_budget_s"] = {"hold-last": seconds}
    lost = gate.parse_rules("budget=-10%")
    assert [change.metric for change in gate.compare(endless, ends, lost) if change.failed] == ["budget"]
    assert not any(change.failed for change in gate.compare(ends, endless, lost))
    assert not any(change.failed for change in gate.compare(endless, endless, lost))
    gone = gate.compare(same, {"scenarios": []}, rules)
    assert {change.metric for change in gone if change.failed} == {"p95", "miss", "goodput"}
    for text in ("p95", "p95=10%", "speed=+1%", "p95=+x%"):
        with pytest.raises(UsageError):
            gate.parse_rules(text)
