"""The replay ring keeps exactly the last `capacity` transitions, and finds labels and interventions among them."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from lgdrl.guidance.records import Labels, Reason, Transitions
from lgdrl.guidance.replay import COLUMNS, GuidedReplayBuffer, Samples

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gym.spaces.Discrete(4)


def make_buffer(capacity: int, seed: int = 0) -> GuidedReplayBuffer:
    return GuidedReplayBuffer(capacity, OBSERVATIONS, ACTIONS, "cpu", seed=seed)


def random_transitions(number: int, rng: np.random.Generator, first: int = 0, labels: float = 0.4) -> Transitions:
    """`number` transitions whose reward is their running number."""
    given_rows = rng.random(number) < labels
    dones = rng.random(number) < 0.3
    terminated = dones & (rng.random(number) < 0.5)
    authority = np.where(given_rows & (rng.random(number) < 0.5), rng.uniform(0.1, 1.0, number), 0.0)
    return Transitions(
        obs=rng.normal(size=(number, 3)).astype(np.float32),
        next_obs=rng.normal(size=(number, 3)).astype(np.float32),
        legal=rng.random((number, 4)) < 0.7,
        next_legal=rng.random((number, 4)) < 0.7,
        learner_actions=rng.integers(4, size=number),
        actions=rng.integers(4, size=number),
        labels=Labels(
            given_rows,
            np.where(given_rows, rng.integers(4, size=number), 0),
            np.where(given_rows[:, None], rng.dirichlet(np.ones(4), size=number), 0.0).astype(np.float32),
            np.where(given_rows, 0, -1).astype(np.int8),
        ),
        authority=authority.astype(np.float32),
        reason=np.where(authority > 0, Reason.UNSAFE, Reason.LEARNER).astype(np.int8),
        rewards=np.arange(first, first + number, dtype=np.float32),
        terminated=terminated,
        truncated=dones & ~terminated,
        episodes=rng.integers(100, size=number),
        steps=rng.integers(100, size=number),
    )


def as_dicts(t: Transitions) -> list[dict]:
    """The model: one plain dict per transition, in order."""
    return [
        {
            "observations": t.obs[i],
            "next_observations": t.next_obs[i],
            "legal": t.legal[i],
            "next_legal": t.next_legal[i],
            "learner_actions": t.learner_actions[i],
            "actions": t.actions[i],
            "labelled": t.labels.given[i],
            "label_actions": t.labels.action[i],
            "label_probs": t.labels.probs[i],
            "label_status": t.labels.status[i],
            "authority": t.authority[i],
            "reason": t.reason[i],
            "rewards": t.rewards[i],
            "dones": t.dones[i],
            "discounts": np.float32(0.99),
            "terminated": t.terminated[i],
            "episodes": t.episodes[i],
            "steps": t.steps[i],
        }
        for i in range(len(t.actions))
    ]


def assert_drawn_from(samples: Samples, allowed: list[dict]) -> None:
    """Every sampled row is, in all its fields, one of the allowed transitions."""
    by_number = {float(row["rewards"]): row for row in allowed}
    for i, number in enumerate(samples.rewards.tolist()):
        for name, value in by_number[number].items():
            assert np.array_equal(getattr(samples, name)[i].numpy(), value), name


def same(a: Samples | None, b: Samples | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in COLUMNS)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 30), max_size=12), st.integers(0, 2**32 - 1))
def test_the_ring_behaves_like_a_list_of_its_last_transitions(capacity, batches, seed):
    rng, buffer, model = np.random.default_rng(seed), make_buffer(capacity), []
    total = 0
    for number in batches:
        transitions = random_transitions(number, rng, first=total)
        buffer.add_transitions(transitions)
        model = (model + as_dicts(transitions))[-capacity:]
        total += number
        labelled = [row for row in model if row["labelled"]]
        intervened = [row for row in model if row["authority"] > 0]
        assert (buffer.size(), buffer.num_labelled, buffer.num_intervened) == (
            len(model),
            len(labelled),
            len(intervened),
        )
        for draw, allowed in (
            (buffer.sample_labelled, labelled),
            (buffer.sample_intervened, intervened),
            (buffer.sample_uniform, model),
        ):
            if allowed:
                samples = draw(20)
                assert len(samples) == 20
                assert_drawn_from(samples, allowed)
            elif draw != buffer.sample_uniform:
                assert draw(20) is None


def driven(num_envs: int, steps: int, rng: np.random.Generator) -> list[Transitions]:
    """Steps of environments whose episodes end at random, as a collector numbers them."""
    episodes, at, total, found = np.arange(num_envs), np.zeros(num_envs, int), num_envs, []
    for _ in range(steps):
        transitions = random_transitions(num_envs, rng)
        transitions.rewards = rng.normal(size=num_envs).astype(np.float32)
        transitions.episodes, transitions.steps = episodes.copy(), at.copy()
        found.append(transitions)
        at += 1
        for i in np.flatnonzero(transitions.dones):
            episodes[i], at[i], total = total, 0, total + 1
    return found


def return_of(row: dict, stored: list[dict], n_step: int, gamma: float) -> tuple[float, float, dict]:
    """By its definition, from a list: the n-step return of a transition, its discount, and its last step."""
    by_step = {(int(other["episodes"]), int(other["steps"])): other for other in stored}
    value, last = 0.0, row
    for k in range(n_step):
        found = by_step.get((int(row["episodes"]), int(row["steps"]) + k))
        if found is None:
            return value, gamma**k, last
        value, last = value + gamma**k * float(found["rewards"]), found
        if found["dones"]:
            return value, gamma ** (k + 1), last
    return value, gamma**n_step, last


@settings(max_examples=60, deadline=None)
@given(
    n_step=st.integers(1, 6),
    num_envs=st.integers(1, 4),
    steps=st.integers(1, 30),
    capacity=st.integers(4, 60),
    restored=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_n_step_returns_are_those_of_a_list_of_the_stored_steps(n_step, num_envs, steps, capacity, restored, seed):
    def empty() -> GuidedReplayBuffer:
        return GuidedReplayBuffer(capacity, OBSERVATIONS, ACTIONS, "cpu", seed=0, n_step=n_step, gamma=0.9)

    rng, buffer, stored = np.random.default_rng(seed), empty(), []
    for k, transitions in enumerate(driven(num_envs, steps, rng)):
        buffer.add_transitions(transitions)
        stored = (stored + as_dicts(transitions))[-capacity:]
        if restored and k == steps // 2:
            state, buffer = buffer.state_dict(), empty()
            buffer.load_state_dict(state)
    slots = (np.arange(len(stored)) + (buffer.pos if buffer.full else 0)) % capacity
    samples = buffer.take(slots)
    for i, row in enumerate(stored):
        value, discount, last = return_of(row, stored, n_step, 0.9)
        assert samples.rewards[i].item() == pytest.approx(value, abs=1e-5)
        assert samples.discounts[i].item() == pytest.approx(discount, rel=1e-6)
        for name in ("next_observations", "next_legal", "dones", "terminated"):
            assert np.array_equal(getattr(samples, name)[i].numpy(), last[name]), name
        for name in ("observations", "actions", "labelled", "steps"):
            assert np.array_equal(getattr(samples, name)[i].numpy(), row[name]), name


def test_labelled_states_are_drawn_as_single_steps():
    buffer = GuidedReplayBuffer(100, OBSERVATIONS, ACTIONS, "cpu", seed=0, n_step=5)
    rows = [
        row for t in driven(2, 20, np.random.default_rng(0)) for row in (buffer.add_transitions(t), *as_dicts(t))[1:]
    ]
    found = buffer.sample_labelled(50)
    assert set(found.rewards.tolist()) <= {row["rewards"].item() for row in rows if row["labelled"]}
    assert (found.discounts == np.float32(0.99)).all()


def test_episodes_without_a_number_have_single_step_returns():
    """SB3's own form does not tell which steps follow each other."""
    buffer = GuidedReplayBuffer(10, OBSERVATIONS, ACTIONS, "cpu", seed=0, n_step=5)
    for _ in range(4):
        buffer.add(np.zeros((1, 3)), np.ones((1, 3)), np.array([1]), np.array([2.0]), np.array([False]), [{}])
    samples = buffer.take(np.arange(4))
    assert samples.rewards.tolist() == [2.0] * 4
    assert (samples.discounts == np.float32(0.99)).all()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12), st.lists(st.integers(0, 9), max_size=6), st.lists(st.integers(0, 9), max_size=6), st.integers(0)
)
def test_a_restored_buffer_goes_on_identically(capacity, before, after, seed):
    rng, buffer = np.random.default_rng(seed), make_buffer(capacity, seed=1)
    for number in before:
        buffer.add_transitions(random_transitions(number, rng))
        buffer.sample_labelled(3)
    restored = make_buffer(capacity, seed=2)
    restored.add_transitions(random_transitions(5, rng))
    restored.load_state_dict(pickle.loads(pickle.dumps(buffer.state_dict())))
    for number in [0, *after]:
        transitions = random_transitions(number, rng)
        buffer.add_transitions(transitions)
        restored.add_transitions(transitions)
        assert same(buffer.sample_labelled(8), restored.sample_labelled(8))
        assert same(buffer.sample_intervened(8), restored.sample_intervened(8))
        if buffer.size():
            assert same(buffer.sample_uniform(8), restored.sample_uniform(8))


def test_draws_cover_labels_evenly():
    buffer = make_buffer(50)
    buffer.add_transitions(random_transitions(120, np.random.default_rng(0)))
    counts = torch.bincount(buffer.sample_labelled(20_000).rewards.long())
    counts = counts[counts > 0]
    assert len(counts) == buffer.num_labelled
    assert counts.min() > 0.8 * counts.float().mean()


def test_drawing_labels_never_changes_uniform_draws():
    one, two = make_buffer(40, seed=5), make_buffer(40, seed=5)
    for buffer in (one, two):
        buffer.add_transitions(random_transitions(30, np.random.default_rng(0)))
    one.sample_labelled(16)
    one.sample_intervened(16)
    assert same(one.sample_uniform(64), two.sample_uniform(64))


def test_the_seed_decides_the_draws():
    def draw(seed):
        buffer = make_buffer(40, seed)
        buffer.add_transitions(random_transitions(30, np.random.default_rng(0)))
        return buffer.sample_uniform(64)

    assert same(draw(3), draw(3))
    assert not same(draw(3), draw(4))


def test_the_state_holds_only_the_filled_part_and_is_a_copy():
    buffer = make_buffer(1000)
    buffer.add_transitions(random_transitions(7, np.random.default_rng(0)))
    state = buffer.state_dict()
    assert {len(column) for column in state["columns"].values()} == {7}
    before = state["columns"]["rewards"].copy()
    buffer.rewards[:] = -1.0
    assert np.array_equal(state["columns"]["rewards"], before)


def test_stored_transitions_do_not_follow_the_callers_arrays():
    buffer, transitions = make_buffer(10), random_transitions(1, np.random.default_rng(0))
    expected = transitions.obs.copy()
    buffer.add_transitions(transitions)
    transitions.obs += 1.0
    assert np.array_equal(buffer.sample_uniform(1).observations.numpy(), expected)


def test_types_are_those_that_learning_needs():
    buffer = make_buffer(10)
    buffer.add_transitions(random_transitions(5, np.random.default_rng(0)))
    samples = buffer.sample_uniform(6)
    types = {name: getattr(samples, name).dtype for name in COLUMNS}
    assert types["actions"] == types["learner_actions"] == types["label_actions"] == torch.int64
    assert types["rewards"] == types["label_probs"] == types["observations"] == types["authority"] == torch.float32
    assert {types[n] for n in ("legal", "next_legal", "labelled", "dones", "terminated")} == {torch.bool}
    assert types["episodes"] == types["steps"] == torch.int64


def test_concatenate_keeps_rows_and_order():
    buffer = make_buffer(10)
    buffer.add_transitions(random_transitions(5, np.random.default_rng(0)))
    a, b = buffer.sample_uniform(3), buffer.sample_uniform(2)
    both = Samples.concatenate([a, b])
    assert len(both) == 5
    assert torch.equal(both.rewards, torch.cat([a.rewards, b.rewards]))
    assert torch.equal(both.label_probs[3:], b.label_probs)


def test_the_sb3_form_stores_unguided_transitions():
    buffer = GuidedReplayBuffer(10, OBSERVATIONS, ACTIONS, "cpu", n_envs=2, seed=0)
    obs = np.arange(6, dtype=np.float32).reshape(2, 3)
    infos = [{"TimeLimit.truncated": True}, {"TimeLimit.truncated": False}]
    buffer.add(obs, obs + 1, np.array([1, 3]), np.array([0.5, 1.5]), np.array([True, True]), infos)
    assert buffer.size() == 2
    assert buffer.num_labelled == 0
    samples = buffer.sample_uniform(50)
    truncated = samples.rewards == 0.5
    assert torch.equal(samples.terminated, ~truncated)
    assert samples.dones.all()
    assert samples.legal.all()
    theirs = buffer.sample(50)
    assert isinstance(theirs, ReplayBufferSamples)
    assert torch.equal(theirs.dones.flatten() == 0, theirs.rewards.flatten() == 0.5)


def test_continuous_actions_are_kept_with_their_labels_and_without_legal_actions():
    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    buffer, rng = GuidedReplayBuffer(10, OBSERVATIONS, space, "cpu", seed=0), np.random.default_rng(0)
    labels = Labels.none(4, space)
    labels.given[1], labels.action[1], labels.status[1] = True, [0.5, -0.5], 0
    executed = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
    ends = np.zeros(4, bool)
    buffer.add_transitions(
        Transitions(
            obs=np.zeros((4, 3), np.float32),
            next_obs=np.ones((4, 3), np.float32),
            legal=None,
            next_legal=None,
            learner_actions=-executed,
            actions=executed,
            labels=labels,
            authority=np.array([0, 0.25, 0, 0], np.float32),
            reason=np.array([0, Reason.SCHEDULE, 0, 0], np.int8),
            rewards=np.arange(4, dtype=np.float32),
            terminated=ends,
            truncated=ends,
            episodes=np.arange(4),
            steps=np.full(4, 7),
        )
    )
    samples = buffer.sample_labelled(3)
    assert samples.legal is samples.next_legal is samples.label_probs is None
    assert torch.equal(samples.label_actions, torch.tensor([[0.5, -0.5]] * 3))
    assert torch.equal(samples.actions, torch.tensor(executed[[1, 1, 1]]))
    assert torch.equal(samples.learner_actions, -samples.actions)
    assert samples.authority.tolist() == [0.25] * 3
    assert buffer.num_intervened == 1
    both = Samples.concatenate([samples, buffer.sample_uniform(2)])
    assert both.legal is None
    assert both.actions.shape == (5, 2)


def test_a_pickled_buffer_works_on():
    buffer = make_buffer(8)
    buffer.add_transitions(random_transitions(13, np.random.default_rng(0)))
    copy = pickle.loads(pickle.dumps(buffer))
    copy.add_transitions(random_transitions(3, np.random.default_rng(1)))
    buffer.add_transitions(random_transitions(3, np.random.default_rng(1)))
    assert same(buffer.sample_uniform(30), copy.sample_uniform(30))


def test_an_empty_buffer_says_so():
    with pytest.raises(ValueError, match="empty"):
        make_buffer(5).sample_uniform(1)


def test_a_state_of_another_capacity_is_refused():
    with pytest.raises(ValueError, match="5 transitions does not fit one of 6"):
        make_buffer(6).load_state_dict(make_buffer(5).state_dict())


@pytest.mark.parametrize(
    ("observations", "actions", "memory", "named"),
    [
        (OBSERVATIONS, gym.spaces.Box(-1, 1, (2, 2)), False, "action_space"),
        (OBSERVATIONS, gym.spaces.Discrete(3, start=1), False, "action_space"),
        (gym.spaces.Discrete(3), ACTIONS, False, "observation_space"),
        (OBSERVATIONS, ACTIONS, True, "optimize_memory_usage"),
    ],
)
def test_what_it_cannot_store_is_refused(observations, actions, memory, named):
    with pytest.raises(ValueError, match=named):
        GuidedReplayBuffer(5, observations, actions, "cpu", optimize_memory_usage=memory)
