"""The expert's share: curves with their ends, horizons that shrink, and gates that open once and stay open."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from lgdrl.guidance.authority import CURVES, Agreement, FirstSteps, Performance, Scheduled
from lgdrl.guidance.interpolation import Blend, HandOver
from lgdrl.guidance.records import Labels, LearnerInfo, Reason
from sim.errors import UsageError
from tests.lgdrl.steps import BOX, labels_of, step_of, transitions_of


def info(space: spaces.Space, on_policy: bool = False) -> LearnerInfo:
    return LearnerInfo("ppo" if on_policy else "sac", spaces.Box(-1, 1, (1,)), space, on_policy)


# ------------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("curve", CURVES)
@given(initial=st.floats(0, 1), final=st.floats(0, 1), length=st.integers(1, 5000))
def test_a_curve_goes_from_one_end_to_the_other_without_turning_back_and_stays(curve, initial, final, length):
    schedule = Scheduled(curve, initial, final, length)
    shares = [schedule.at(k) for k in range(0, 2 * length, max(length // 37, 1))]
    assert shares[0] == initial
    assert schedule.at(length) == pytest.approx(final)
    assert schedule.at(10**9) == pytest.approx(final)
    assert all(min(initial, final) - 1e-12 <= share <= max(initial, final) + 1e-12 for share in shares)
    signs = {np.sign(b - a) for a, b in itertools.pairwise(shares) if abs(b - a) > 1e-12}
    assert signs <= {np.sign(final - initial)}


def test_curves_have_their_shapes():
    middle = {name: Scheduled(name, 1.0, 0.0, 100).at(50) for name in CURVES}
    assert middle == {
        "linear": pytest.approx(0.5),
        "cosine": pytest.approx(0.5),
        "exponential": pytest.approx(0.0759, abs=1e-4),
        "constant": 1.0,
    }
    assert Scheduled("cosine", 1.0, 0.0, 100).at(10) > 0.97


def test_a_schedule_without_length_is_at_its_end():
    assert Scheduled("linear", 1.0, 0.0, 0).at(0) == 0.0


def test_the_expert_drives_fewer_and_fewer_first_steps():
    authority = FirstSteps(10, 100)
    driven = [
        sum(float(authority.share(step_of([0], decisions=done, steps=np.array([k])))[0]) for k in range(30))
        for done in (0, 50, 90, 100, 500)
    ]
    assert driven == [10, 5, 1, 0, 0]


# ----------------------------------------------------------------------------------------------------------- gates


def episode(authority: Performance, number: int, episode_return: float, share: float | None = None) -> None:
    """One episode of two steps of environment 0, driven with the authority's own share or another one."""
    for step, reward in enumerate((episode_return - 1.0, 1.0)):
        if share is None:
            share = float(authority.share(step_of([0], episodes=np.array([number])))[0])
        made = transitions_of(step_of([0], episodes=np.array([number]), steps=np.array([step])))
        rewards = np.array([reward], np.float32)
        authority.on_store(
            dataclasses.replace(
                made, rewards=rewards, authority=np.array([share], np.float32), terminated=np.array([step == 1])
            )
        )


def test_performance_hands_over_as_the_probes_approach_the_experts_return():
    authority = Performance(fraction=0.5, probe_every=2, window=1)
    assert authority.share(step_of([0, 0], episodes=np.array([0, 1]))).tolist() == [1.0, 0.0]
    episode(authority, 0, 110.0)  # the expert
    assert authority.lowest == 1.0
    episode(authority, 1, 10.0)  # the learner, untrained: the lead is 100, half of it is enough
    assert authority.lowest == 1.0
    episode(authority, 3, 35.0)
    assert authority.lowest == pytest.approx(0.5)
    episode(authority, 5, 0.0)
    assert authority.lowest == pytest.approx(0.5)  # never back
    episode(authority, 7, 60.0)
    assert authority.lowest == 0.0


def test_an_episode_that_was_not_the_experts_alone_says_nothing_about_it():
    authority = Performance(fraction=0.5, probe_every=2, window=1)
    episode(authority, 0, 500.0, share=0.5)
    episode(authority, 1, 10.0)
    assert authority.lowest == 1.0
    episode(authority, 2, 110.0)
    episode(authority, 3, 60.0)
    assert authority.lowest == 0.0


def test_an_expert_that_is_no_better_than_the_learner_hands_over_at_once():
    authority = Performance(fraction=0.5, probe_every=2, window=1)
    episode(authority, 0, 5.0)
    episode(authority, 1, 10.0)
    assert authority.lowest == 0.0


def test_performance_goes_on_from_its_state():
    first, second = (Performance(fraction=0.5, probe_every=2, window=2) for _ in range(2))
    for number, value in enumerate((100.0, 0.0, 120.0, 10.0)):
        episode(first, number, value)
    second.load_state_dict(first.state_dict())
    for authority in (first, second):
        episode(authority, 5, 40.0)
    assert 0 < first.lowest < 1
    assert second.state_dict() == first.state_dict()


def test_agreement_hands_over_as_proposals_come_to_agree():
    authority = Agreement(fraction=0.5, labels=2)
    authority.attach(info(spaces.Discrete(3)))
    assert authority.share(step_of([0])).tolist() == [1.0]
    authority.on_labels(step_of([0, 1]), labels_of([0, None]))  # one label, which agrees: average 1/2
    assert authority.share(step_of([0])).tolist() == [0.0]
    other = Agreement(fraction=1.0, labels=2)
    other.attach(info(spaces.Discrete(3)))
    other.on_labels(step_of([0, 1]), labels_of([0, 2]))  # 1/2, then 1/4
    assert other.agreement == 0.25
    assert other.share(step_of([0])).tolist() == [0.75]


def test_continuous_actions_agree_within_a_tenth_of_half_the_range():
    space = spaces.Box(np.float32([0, 0]), np.float32([10, 1]))
    authority = Agreement(fraction=1.0, labels=1)
    authority.attach(info(space))
    labels = Labels.none(1, space)
    labels.given[0], labels.action[0], labels.status[0] = True, [5.0, 0.5], 0
    authority.on_labels(step_of(np.float32([[5.6, 0.5]])), labels)
    assert authority.agreement == 0.0
    authority.on_labels(step_of(np.float32([[5.4, 0.46]])), labels)
    assert authority.agreement == 1.0


# -------------------------------------------------------------------------------------------------------- arbiters


def boxed(rows: list[list[float] | None]) -> Labels:
    labels = Labels.none(len(rows), BOX)
    for i, row in enumerate(rows):
        if row is not None:
            labels.given[i], labels.action[i], labels.status[i] = True, row, 0
    return labels


ALL = np.ones(3, bool)


def test_labels_are_asked_where_the_expert_has_a_share_only():
    context = step_of([0, 0, 0], decisions=50)
    none = np.zeros(3, bool)
    assert Blend(Scheduled("linear", 1, 0, 100)).requires(context, none, ~ALL | [True, False, True]).tolist() == [
        True,
        False,
        True,
    ]
    assert not Blend(Scheduled("linear", 1, 0, 50)).requires(context, none, ALL).any()


def test_a_switched_dimension_is_the_experts_or_the_learners_never_between():
    proposals = np.float32([[0.0, 0.0]] * 3)
    labels = boxed([[1.0, 1.0], [1.0, 1.0], None])
    blend = Blend(Scheduled("constant", 0.75, 0.0, 10), switched=[1])
    assert blend.decide(step_of(proposals), labels, ALL).actions.tolist() == [[0.75, 1.0], [0.75, 1.0], [0.0, 0.0]]
    blend = Blend(Scheduled("constant", 0.25, 0.0, 10), switched=[1])
    execution = blend.decide(step_of(proposals), labels, ALL)
    assert execution.actions.tolist() == [[0.25, 0.0], [0.25, 0.0], [0.0, 0.0]]
    assert execution.reason.tolist() == [Reason.SCHEDULE, Reason.SCHEDULE, Reason.LEARNER]
    assert blend.metrics() == {"alpha": pytest.approx(0.75)}


def test_a_dimension_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match=r"switched = \[2\]: actions have dimensions 0 to 1"):
        Blend(Scheduled("linear", 1, 0, 10), switched=[2]).attach(info(BOX))


def hand_over(form, share: float = 0.3, **options) -> HandOver:
    return HandOver(Scheduled("constant", share, 0.0, 10**9), form, np.random.SeedSequence(1), **options)


def test_hand_over_by_step_gives_the_expert_its_share():
    arbiter, num = hand_over("step"), 20_000
    execution = arbiter.decide(step_of([0] * num), labels_of([2] * num), np.ones(num, bool))
    led = execution.authority == 1
    assert np.array_equal(led, execution.actions == 2)
    assert led.mean() == pytest.approx(0.3, abs=0.015)  # 4.6 standard deviations


def test_a_segment_has_one_controller():
    arbiter, num = hand_over("segment", 0.5, segment=4), 500
    drivers = []
    for k in range(12):
        context = step_of([0] * num, steps=np.full(num, k))
        drivers.append(arbiter.decide(context, labels_of([2] * num), np.ones(num, bool)).actions)
    segments = np.array(drivers).reshape(3, 4, num)
    assert (segments == segments[:, :1]).all()
    assert 0.3 < (segments[0, 0] == segments[1, 0]).mean() < 0.7  # drawn anew


def test_a_mixture_draws_the_learners_part_from_the_softmax_of_its_values():
    num, q = 30_000, np.array([[0.0, 1.0, 5.0]])
    legal = np.repeat([[True, True, False]], num, axis=0)
    context = step_of([0] * num, q=np.repeat(q, num, axis=0), legal=legal)
    arbiter = hand_over("mixture", 0.4, temperature=0.5)
    actions = arbiter.decide(context, labels_of([0] * num), np.ones(num, bool)).actions
    second = np.exp(1.0 / 0.5) / (1 + np.exp(1.0 / 0.5))
    assert np.bincount(actions, minlength=3) / num == pytest.approx([1 - 0.6 * second, 0.6 * second, 0], abs=0.015)


def test_hand_over_goes_on_from_its_state():
    first, second = hand_over("segment", 0.5), hand_over("segment", 0.5)

    def drive(arbiter, k):
        context = step_of([0] * 50, steps=np.full(50, k))
        return arbiter.decide(context, labels_of([2] * 50), np.ones(50, bool)).actions.tolist()

    for k in range(3):
        drive(first, k)
    second.load_state_dict(first.state_dict())
    assert [drive(first, k) for k in range(3, 25)] == [drive(second, k) for k in range(3, 25)]


def test_mixtures_of_continuous_actions_are_refused():
    with pytest.raises(UsageError, match="choose 'step' or 'segment'"):
        hand_over("mixture").attach(info(BOX))
    with pytest.raises(UsageError, match="choose 'step' or 'segment'"):
        hand_over("mixture").attach(info(spaces.Discrete(3), on_policy=True))
