"""The expert `recorded` says what was shown in the nearest recorded state, and that it does not know beyond."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from experts import registry
from experts.data.demonstrations import demonstrations_of
from experts.data.episodes import save_episode
from experts.provider import Context, Status
from experts.recorded import RecordedExpert
from sim.errors import UsageError
from tests.recordings import drive


@pytest.fixture(scope="module")
def driven():
    return [drive(seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def folder(driven, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for k, episode in enumerate(driven):
        save_episode(folder / f"{k}", episode)
    return folder


def request(obs, legal=None) -> Context:
    return Context(obs=obs, action_space=spaces.Discrete(5), legal=np.ones(5, bool) if legal is None else legal)


def expert_on(points: list[list[float]], actions: list[int], radius: float = 1.0, **changes) -> RecordedExpert:
    """Knows `actions` at `points`, everything legal."""
    episode = drive(turns=1)
    (turn,) = episode.turns
    everything = np.ones(5, bool)
    turns = tuple(
        dataclasses.replace(turn, obs=np.array(point), action=action, expert_action=None, legal=everything, **changes)
        for point, action in zip(points, actions, strict=True)
    )
    last = {"last_obs": np.array(points[-1]), "last_legal": everything}
    return RecordedExpert(demonstrations_of([dataclasses.replace(episode, turns=turns, **last)], "recording"), radius)


def test_on_recorded_states_it_repeats_what_was_recorded(driven, folder):
    expert = registry.make("recorded", "lane-change", {"path": str(folder)})
    turns = [turn for episode in driven for turn in episode.turns]
    decisions = expert.decide([request(turn.obs, turn.legal) for turn in turns])
    assert [decision.action for decision in decisions] == [turn.action for turn in turns]
    assert {decision.status for decision in decisions} == {Status.OK}
    assert decisions[0].reason == "as in episode 0, decision 0, 0.00 away"


def test_beyond_the_radius_there_is_no_decision(driven, folder):
    expert = registry.make("recorded", "lane-change", {"path": str(folder), "radius": 0.1})
    near, far = driven[0].turns[5].obs.copy(), driven[0].turns[5].obs.copy()
    near[0] += 0.05
    far[0] += 100.0
    known, unknown = expert.decide([request(near), request(far)])
    assert known.status is Status.OK
    assert (unknown.action, unknown.status) == (None, Status.FAILED)
    assert unknown.reason == "no recorded state within 0.1"


def test_an_action_that_is_not_legal_leaves_the_next_nearest():
    expert = expert_on([[0.0], [0.1], [0.2], [0.3], [0.4], [0.5], [5.0]], [0, 0, 0, 0, 0, 3, 1])
    legal = np.array([False, True, True, True, True])
    assert expert.decide([request(np.array([0.0]), legal)])[0].action == 3
    only_far = np.array([False, True, False, False, False])
    (decision,) = expert.decide([request(np.array([0.0]), only_far)])
    assert decision.status is Status.FAILED
    assert decision.reason == "no recorded state within 1 has a legal action"


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.integers(0, 4)), min_size=1, max_size=12),
    st.floats(-2, 2),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.floats(0.01, 3),
)
def test_the_nearest_legal_demonstration_within_the_radius_decides(shown, point, legal, radius):
    expert = expert_on([[x] for x, _ in shown], [action for _, action in shown], radius)
    (decision,) = expert.decide([request(np.array([point]), np.array(legal))])
    distances = [abs(x - point) for x, action in shown if legal[action] and abs(x - point) < radius]
    if distances:
        best = {action for x, action in shown if legal[action] and abs(x - point) == min(distances)}
        assert decision.action in best
    else:
        assert decision.status is Status.FAILED


def test_a_learners_decisions_are_no_demonstrations_but_advice_on_them_is():
    with pytest.raises(UsageError, match="demonstrates nothing"):
        expert_on([[0.0]], [1], controller="learner")
    expert = expert_on([[0.0], [1.0]], [1, 1], controller="human")
    assert expert.decide([request(np.array([0.0]))])[0].action == 1
    episode = drive(turns=2)
    advised = tuple(
        dataclasses.replace(turn, controller="learner", action=1, expert_action=2) for turn in episode.turns
    )
    advised = tuple(dataclasses.replace(turn, legal=np.ones(5, bool)) for turn in advised)
    shown = demonstrations_of([dataclasses.replace(episode, turns=advised)], "recording")
    assert shown.labels.tolist() == [2, 2]
    assert not shown.driven.any()


def test_the_same_recording_gives_the_same_answers(driven, folder):
    requests = [request(turn.obs + 0.03, turn.legal) for turn in driven[1].turns]
    one, two = (registry.make("recorded", "lane-change", {"path": str(folder)}, seed) for seed in (1, 2))
    assert [d.action for d in one.decide(requests)] == [d.action for d in two.decide(requests)]


def test_an_observation_that_is_not_finite_is_not_answered(folder):
    expert = registry.make("recorded", "lane-change", {"path": str(folder)})
    (decision,) = expert.decide([request(np.full(29, np.nan))])
    assert decision.status is Status.FAILED


@pytest.mark.parametrize(
    ("scenario", "options", "words"),
    [
        ("lane-change", {}, "needs a recording"),
        ("lane-change", {"path": "nothing.npz"}, "cannot read recording"),
        ("highway-v0", {"path": "FOLDER"}, "is of scenario 'lane-change', not 'highway-v0'"),
        ("lane-change", {"path": "FOLDER", "radius": 0.0}, "choose more than 0"),
        ("lane-change", {"path": "FOLDER", "raduis": 1.0}, "did you mean 'radius'"),
        ("racetrack-v0", {"path": "FOLDER"}, "has continuous actions"),
    ],
)
def test_bad_options_are_one_clear_line(folder, scenario, options, words):
    options = {key: str(folder) if value == "FOLDER" else value for key, value in options.items()}
    with pytest.raises(UsageError) as error:
        registry.make("recorded", scenario, options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_other_observations_or_actions_are_refused(folder):
    expert = registry.make("recorded", "lane-change", {"path": str(folder)})
    with pytest.raises(UsageError, match=r"observations of shape \(29,\), the environments give \(5, 5\)"):
        expert.decide([request(np.zeros((5, 5)))])
    with pytest.raises(UsageError, match="among 5 actions, the environments offer 3"):
        expert.decide([Context(obs=np.zeros(29), action_space=spaces.Discrete(3))])
