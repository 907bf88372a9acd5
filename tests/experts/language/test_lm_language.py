"""The driving language: one picture behind scene and prompt, answers that can be read back, words for people."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experts.language.driving_language import Facts, Picture, answer, in_english, own_fact, read_answer, read_prompt
from experts.language.vocabulary import DRIVING
from experts.llm.prompt import PromptConfig, PromptGenerator, example_scene
from sim.actions import FULL, LATERAL, LONGITUDINAL
from sim.errors import UsageError

SPEEDS = st.floats(0, 45, allow_nan=False)
GENERATORS = [PromptGenerator(PromptConfig(verdicts=verdicts)) for verdicts in (False, True)]


@st.composite
def scenes(draw):
    lanes = draw(st.integers(1, 5))
    lane = draw(st.integers(0, lanes - 1))
    car = st.tuples(st.integers(0, lanes - 1), st.floats(-150, 150, allow_nan=False), SPEEDS)
    goal = draw(
        st.none() | st.fixed_dictionaries({"lane": st.integers(0, lanes - 1), "remaining": st.floats(-20, 900)})
    )
    data = {
        "lanes": lanes,
        "lane": lane,
        "speed": draw(SPEEDS),
        "goal": goal,
        "cars": [list(row) for row in draw(st.lists(car, max_size=8))],
    }
    scene = example_scene(data, draw(st.sampled_from([FULL, LONGITUDINAL, LATERAL])))
    target = draw(st.integers(max(lane - 1, 0), min(lane + 1, lanes - 1)))
    legal = np.array(draw(st.lists(st.booleans(), min_size=len(scene.legal), max_size=len(scene.legal))))
    legal[1] |= not legal.any()
    return dataclasses.replace(scene, legal=legal, ego=dataclasses.replace(scene.ego, target_lane=target))


@given(scenes(), st.sampled_from(["label", "json", "text"]), st.sampled_from(GENERATORS))
@settings(max_examples=150, deadline=None)
def test_the_text_of_a_prompt_and_its_scene_are_one_picture(scene, form, generator):
    text = generator.build(scene, form).messages[-1]["content"]
    assert Picture.read(text) == Picture.of(scene)


@given(scenes(), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_prompts_are_written_in_the_vocabulary(scene, plan):
    prompt = Picture.of(scene).prompt(plan)
    assert DRIVING.decode(DRIVING.encode(prompt)) == prompt
    assert prompt.endswith(f"plan {plan} <think>")


@given(scenes(), st.sampled_from(GENERATORS))
@settings(max_examples=50, deadline=None)
def test_a_prompt_says_what_it_calls_actions(scene, generator):
    for form in ("label", "json", "text"):
        prompt = generator.build(scene, form)
        found = read_prompt(prompt.messages[-1]["content"])[1]
        names = {i: str(i) if form == "text" else prompt.actions.label(i) for i in prompt.legal}
        assert found == {prompt.actions.manoeuvres[i]: name for i, name in names.items()}


GOOD = GENERATORS[0].build(example_scene({"lanes": 2, "lane": 0, "speed": 9.0, "goal": None, "cars": []}), "label")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Available: ", "Available: , "),
        ("Available: ", "Available: AB, "),
        ("Available: ", "Available: 1 FLY, "),
        ("speed 9.0", "speed 9.0.0"),
        ("own front: none", "own front: gap near, speed 1.0, TTC -"),
        ("own front: none", "nobody"),
    ],
)
def test_forged_prompts_are_refused(old, new):
    text = GOOD.messages[-1]["content"]
    assert old in text
    with pytest.raises(UsageError, match="only answers driving prompts"):
        Picture.read(text.replace(old, new))


def test_numbers_and_lists_out_of_proportion_still_make_a_prompt_of_ordinary_length():
    text = GOOD.messages[-1]["content"].replace("speed 9.0", "speed " + "9" * 400)
    text = text.replace("own front: none", f"own front: gap {'9' * 400}, speed {'9' * 400}, TTC -")
    text = text.replace("Available: ", "Available: " + "B, " * 1000)
    assert len(DRIVING.encode(Picture.read(text).prompt())) < 60


SIDE = st.sampled_from(["safe", "unsafe F", "unsafe R", "wait", "blocked"])
OWN = st.builds(own_fact, st.floats(0, 50), st.floats(0, 60) | st.just(np.inf))


@given(OWN, SIDE, SIDE, st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_answers_are_read_back(own, left, right, plan):
    facts = Facts(own, left, right)
    read = read_answer(answer(facts, plan), len(plan))
    assert read is not None
    assert (read.facts, read.plan) == (facts, tuple(plan))
    assert read_answer(answer(facts, plan), len(plan) + 1) is None
    assert DRIVING.encode(answer(facts, plan))


@pytest.mark.parametrize(
    "text",
    ["", "hello", "Ego: lane 1 of 4, speed x, acceleration 0.0\nGoal: lane 3", "Ego: lane 1 of 4, speed 3.0", "\n\n\n"],
)
def test_other_texts_are_refused_in_one_line(text):
    with pytest.raises(UsageError, match="only answers driving prompts") as caught:
        Picture.read(text)
    assert "\n" not in str(caught.value)


def test_reasoning_in_english():
    told = in_english("own F t3 limit v20 ; left unsafe R ; right safe ; </think>")
    assert told == (
        "Car ahead, met in 3 to 4 s; 20 m/s are safe behind it. Left lane is unsafe: car behind too close. "
        "Right lane is safe."
    )
    assert in_english("own free ; left blocked ; right wait ; </think>") == (
        "Nobody ahead. No left lane. Right lane: settle in this one first."
    )
    assert in_english("own F t7 limit v20") == "Car ahead, not met within 7 s; 20 m/s are safe behind it."
    assert len(told) <= 200
