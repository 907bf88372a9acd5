"""The driver with random weights: form, legality and independence of batches hold whatever it has learned."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from experts.driving import run_episodes
from experts.language import gpt
from experts.language.driver import Driver
from experts.language.driving_language import Picture, ShownCar, read_answer
from experts.language.vocabulary import DRIVING
from experts.provider import Decision, PolicyProvider
from sim.actions import MetaAction
from sim.errors import UsageError

torch.set_num_threads(1)

TENTHS = st.integers(-20, 2000).map(lambda tenths: tenths / 10)
CARS = st.none() | st.builds(ShownCar, TENTHS, st.integers(0, 400).map(lambda tenths: tenths / 10))
PAIRS = st.none() | st.tuples(CARS, CARS)


@st.composite
def pictures(draw):
    lanes = draw(st.integers(1, 6))
    lane = draw(st.integers(0, lanes - 1))
    target = draw(st.integers(max(lane - 1, 0), min(lane + 1, lanes - 1)))
    goal = draw(st.none() | st.integers(0, lanes - 1))
    return Picture(
        lanes=lanes,
        lane=lane,
        target=target,
        speed=round(draw(st.floats(0, 40)), 1),
        goal_lane=goal,
        remaining=None if goal is None else float(draw(st.integers(0, 500))),
        cars=(
            draw(st.tuples(CARS, CARS)),
            draw(PAIRS) if lane else None,
            draw(PAIRS) if lane < lanes - 1 else None,
        ),
        legal=tuple(sorted(draw(st.sets(st.sampled_from(MetaAction), min_size=1)))),
    )


def driver(seed=0):
    return Driver(gpt.new(gpt.GPTConfig(len(DRIVING), 96, 2, 2, 32), seed))


@given(st.lists(pictures(), min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_every_answer_can_be_read_and_begins_with_something_legal(seen, plan):
    for picture, thought in zip(seen, driver().think(seen, plan), strict=True):
        answer = read_answer(" ".join(word for word, _ in thought.words), plan)
        assert answer is not None
        assert answer.plan == thought.plan
        assert MetaAction(thought.plan[0]) in picture.legal
        assert thought.plan[0] == int(np.argmax(thought.log_probs))
        probs = np.exp(thought.log_probs)
        assert probs.sum() == pytest.approx(1.0)
        assert {int(a) for a in np.flatnonzero(probs)} <= {int(a) for a in picture.legal}
        assert thought.prompt_tokens == len(picture.prompt(plan).split())
        assert thought.reason


@given(st.lists(pictures(), min_size=2, max_size=6))
@settings(max_examples=20, deadline=None)
def test_a_thought_does_not_depend_on_its_batch(seen):
    model = driver(1)
    for picture, together in zip(seen, model.think(seen, 2), strict=True):
        (alone,) = model.think([picture], 2)
        assert alone.words[0][0] == together.words[0][0]
        if alone.reasoning == together.reasoning:
            np.testing.assert_allclose(np.exp(alone.log_probs), np.exp(together.log_probs), atol=1e-4)


@given(pictures())
@settings(max_examples=20, deadline=None)
def test_words_have_the_likelihood_that_the_whole_model_gives_them(picture):
    """The cached, forced generation against one forward pass over the finished text."""
    model = gpt.new(gpt.GPTConfig(len(DRIVING), 96, 2, 2, 32), 3)
    (thought,) = Driver(model).think([picture], 2)
    words = [word for word, _ in thought.words]
    prompt = DRIVING.encode(picture.prompt(2))
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *DRIVING.encode(" ".join(words))]]))[0, len(prompt) - 1 :]
    for place, (word, value) in enumerate(thought.words):
        if word in MetaAction.__members__:
            legal = [a.name for a in picture.legal] if words[place - 1] == "</think>" else list(MetaAction.__members__)
            policy = torch.log_softmax(logits[place].double()[[DRIVING.id(name) for name in legal]], -1)
            assert value == pytest.approx(float(policy[legal.index(word)]), abs=1e-4)


EMPTY = Picture(2, 0, 0, 20.0, None, None, ((None, None), None, (None, None)), tuple(MetaAction)[1:])


def test_every_picture_may_ask_for_a_plan_of_its_own_in_any_number():
    plans = [1 + i % 9 for i in range(70)]
    thoughts = driver().think([EMPTY] * 70, plans)
    assert [len(thought.plan) for thought in thoughts] == plans
    for length in range(1, 10):
        alike = [thought for thought, steps in zip(thoughts, plans, strict=True) if steps == length]
        assert {thought.plan for thought in alike} == {alike[0].plan}
        for thought in alike:
            np.testing.assert_allclose(thought.log_probs[1:], alike[0].log_probs[1:], atol=1e-5)


def test_models_are_kept_apart_by_their_weights(tmp_path):
    for seed in (0, 1):
        gpt.save(gpt.new(gpt.GPTConfig(len(DRIVING), 96, 1, 1, 8), seed), DRIVING, tmp_path / f"{seed}.safetensors")
    one, other = (Driver.load(tmp_path / f"{seed}.safetensors") for seed in (0, 1))
    assert one.name.startswith("lgdrl-driver-")
    assert one.name != other.name
    assert one.fingerprint == Driver.load(str(tmp_path / "0.safetensors")).fingerprint != other.fingerprint


def test_a_missing_model_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.assets.folder", lambda: tmp_path)
    with pytest.raises(UsageError, match=r"assets/driver/model\.safetensors"):
        Driver.load()
    with pytest.raises(UsageError, match="cannot read model"):
        Driver.load(tmp_path / "nothing")


def test_nothing_to_think_about_and_bad_lengths():
    assert driver().think([]) == []
    picture = EMPTY
    with pytest.raises(UsageError, match="plan = 0: choose 1 to 9"):
        driver().think([picture], 0)
    tiny = Driver(gpt.new(gpt.GPTConfig(len(DRIVING), 24, 1, 1, 8), 0))
    with pytest.raises(UsageError, match="exceed the model's context of 24"):
        tiny.think([picture])
    with pytest.raises(UsageError, match="does not speak"):
        Driver(gpt.new(gpt.GPTConfig(7, 24, 1, 1, 8), 0))


def test_the_shipped_driver_drives_alone():
    """No veto, no fallback: its own words. The card in assets/driver has the figures of many more episodes."""

    class Alone(PolicyProvider):
        name = "alone"
        needs = frozenset({"scene"})

        def __init__(self):
            self.driver = Driver.load()

        def decide(self, contexts):
            thoughts = self.driver.think([Picture.of(context.scene, context.legal) for context in contexts])
            return [Decision(action=thought.plan[0]) for thought in thoughts]

    envs = sim.make_vec("lane-change", 8)
    ends = run_episodes(envs, Alone(), range(20_000, 20_008))
    assert sum(end["success"] for end in ends) >= 7
