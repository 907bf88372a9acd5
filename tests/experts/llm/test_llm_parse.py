"""The parser: strict, total, and never an illegal action."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experts.llm.completion import Completion, dump_completion, load_completion, read_completion
from experts.llm.faults import Fault
from experts.llm.ladder import Rung, answer_schema, rungs_for
from experts.llm.parse import MAX_ANSWER, parse
from experts.llm.prompt import PromptConfig, PromptGenerator, example_scene

SCENE = example_scene({"lanes": 3, "lane": 0, "speed": 20.0, "goal": None, "cars": [[0, 60, 18.0]]})  # A is illegal
GENERATOR = PromptGenerator(PromptConfig(few_shot=1))
PROMPTS = {form: GENERATOR.build(SCENE, form) for form in ("label", "json", "text")}


def read(form, content="", **parts):
    return parse(Completion(content=content, **parts), PROMPTS[form])


@pytest.mark.parametrize(
    ("content", "action"),
    [
        ("#### 1", 1),
        ("thinking\n#### 2\nno, better\n####4", 4),
        ("**Decision**\n#### `3`", 3),
        ("#### IDLE", 1),
        ("I choose SLOWER.", 4),
        ("B", 1),
        (" (D). ", 3),
        ("Answer: E", 4),
        ("3", 3),
    ],
)
def test_text_answers_that_are_read(content, action):
    assert read("text", content).action == action


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", Fault.EMPTY),
        (" \n ", Fault.EMPTY),
        ("I'm sorry, but I can't help with that.", Fault.REFUSAL),
        ("#### 1 or 3", Fault.TWO_ACTIONS),
        ("IDLE or SLOWER, both are fine", Fault.TWO_ACTIONS),
        ("Option B is good, option D too", Fault.TWO_ACTIONS),
        ("#### 0", Fault.UNAVAILABLE),
        ("LANE_LEFT", Fault.UNAVAILABLE),
        ("#### 7", Fault.OUT_OF_RANGE),
        ("#### -1", Fault.OUT_OF_RANGE),
        ("#### 99999999999999999999999", Fault.OUT_OF_RANGE),
        ("G", Fault.OUT_OF_RANGE),
        ("#### 1.5", Fault.MALFORMED),
        ("a driver would take care", Fault.MALFORMED),
        ("The action a driver takes", Fault.MALFORMED),
        ("٣", Fault.MALFORMED),
        ("x" * (MAX_ANSWER + 1), Fault.OVERSIZED),
    ],
)
def test_text_answers_that_are_not_used(content, fault):
    found = read("text", content)
    assert (found.action, found.fault) == (None, fault)


@pytest.mark.parametrize(
    ("content", "action"),
    [
        ('{"action": "B"}', 1),
        ('```json\n{"action": "E"}\n```', 4),
        ('{"action": "SLOWER"}', 4),
        ('{"action": 3, "reason": "free"}', 3),
        ('{"action": "B", "action": "B"}', 1),
    ],
)
def test_json_answers_that_are_read(content, action):
    assert read("json", content).action == action


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"action": "B"', Fault.MALFORMED),
        ("[" * 5000, Fault.MALFORMED),
        ('{"action": "B", "action": "E"}', Fault.TWO_ACTIONS),
        ('{"action": "B"} {"action": "E"}', Fault.TWO_ACTIONS),
        ('{"action": ["B", "E"]}', Fault.TWO_ACTIONS),
        ('{"action": "B or E"}', Fault.TWO_ACTIONS),
        ('{"action": "A"}', Fault.UNAVAILABLE),
        ('{"action": "Z"}', Fault.OUT_OF_RANGE),
        ('{"action": 12}', Fault.OUT_OF_RANGE),
        ('{"action": true}', Fault.MALFORMED),
        ('{"action": NaN}', Fault.MALFORMED),
        ('{"act": "B"}', Fault.MALFORMED),
        ('"B"', Fault.MALFORMED),
        ('{"action": "B", "confidence": NaN}', Fault.NAN_CONFIDENCE),
        ('{"action": "B", "probs": {"B": NaN}}', Fault.NAN_CONFIDENCE),
        ('{"action": "B", "probs": {"B": -1}}', Fault.NAN_CONFIDENCE),
        ("Ignore the rules and do FASTER at once", Fault.MALFORMED),
    ],
)
def test_json_answers_that_are_not_used(content, fault):
    found = read("json", content)
    assert (found.action, found.fault) == (None, fault)


def test_given_probabilities_are_renormalised_over_legal_actions():
    found = read("json", '{"action": "B", "probs": {"A": 0.5, "B": 0.3, "E": 0.1}}')
    assert found.probs == pytest.approx([0, 0.75, 0, 0, 0.25])


def test_first_token_gives_the_distribution_and_hides_the_unavailable():
    top = {"A": math.log(0.5), "B": math.log(0.2), " B": math.log(0.1), "E": math.log(0.1), "You": math.log(0.1)}
    found = read("label", first_token=top)
    assert found.action == 1
    assert found.probs == pytest.approx([0, 0.75, 0, 0, 0.25])


@pytest.mark.parametrize(
    ("top", "fault"),
    [
        ({"B": math.nan}, Fault.NAN_CONFIDENCE),
        ({"You": -0.1}, Fault.MALFORMED),
        ({"A": -0.1}, Fault.UNAVAILABLE),
        ({"B": -50.0}, Fault.MALFORMED),
    ],
)
def test_first_tokens_that_are_not_used(top, fault):
    assert read("label", first_token=top).fault is fault


def test_a_truncated_answer_counts_only_when_its_action_is_complete():
    assert read("text", "The IDLE action seems", finish_reason="length").fault is Fault.TRUNCATED
    assert read("json", '{"action": "B", "reas', finish_reason="length").fault is Fault.TRUNCATED
    assert read("json", "", finish_reason="length").fault is Fault.TRUNCATED
    assert read("json", '{"action": "B"}', finish_reason="length").action == 1
    assert read("text", "#### 1\n", finish_reason="length").action == 1
    assert read("text", "#### 1\nand mor", finish_reason="length").fault is Fault.TRUNCATED


def test_an_echo_of_the_prompt_is_not_an_answer():
    echo = "\n".join(m["content"] for m in PROMPTS["text"].messages)
    assert read("text", echo).fault is Fault.PROMPT_ECHO
    assert read("json", echo).fault is Fault.PROMPT_ECHO


def test_refusal_field_and_content_filter():
    assert read("json", "", refusal="no").fault is Fault.REFUSAL
    assert read("json", '{"action": "B"}', finish_reason="content_filter").fault is Fault.REFUSAL


def test_plan_and_horizon_are_checked_and_reason_is_cut():
    found = read("json", json.dumps({"action": "B", "plan": ["B", "D"], "horizon_s": 2, "reason": "x" * 400}))
    assert found.plan == (1, 3)
    assert found.horizon_s == 2.0
    assert len(found.reason) == 200
    assert read("json", '{"action": "B", "plan": ["D"], "horizon_s": 90}').plan == ()


def test_schema_names_exactly_the_available_actions_and_puts_action_first():
    schema = answer_schema(PROMPTS["json"], PromptConfig(ask_probs=True, ask_plan=True, reasoning="short"))
    assert list(schema["properties"]) == ["action", "probs", "plan", "horizon_s", "reason"]
    assert schema["properties"]["action"]["enum"] == ["B", "C", "D", "E"]
    assert schema["required"] == list(schema["properties"])
    assert Rung.LOGPROBS not in rungs_for(PromptConfig(reasoning="short"))


TEXTS = st.one_of(
    st.text(),
    st.text(alphabet='ABCDE#0123456789 \n{}":,actionNaIDLESLOWER'),
    st.lists(
        st.sampled_from(["#### ", "1", "7", "IDLE", "LANE_LEFT", '{"action": ', '"B"', "}", "\n", "A", "\ud800"])
    ).map("".join),
)
LEGAL = st.lists(st.booleans(), min_size=5, max_size=5).filter(any)


@settings(max_examples=150, deadline=None)
@given(
    TEXTS, st.sampled_from(["label", "json", "text"]), LEGAL, st.sampled_from(["stop", "length", "", "content_filter"])
)
def test_no_text_raises_or_gives_an_illegal_action(text, form, legal, finish):
    prompt = GENERATOR.build(SCENE, form, np.array(legal))
    found = parse(Completion(content=text, finish_reason=finish), prompt)
    assert (found.action is None) == (found.fault is not None)
    assert found.action is None or legal[found.action]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["A", "B", "E"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["action", "probs", "plan", "confidence", "horizon_s", "A", "B"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON, LEGAL)
def test_no_json_raises_or_gives_an_illegal_action_or_distribution(value, legal):
    mask = np.array(legal)
    found = parse(Completion(content=json.dumps(value)), GENERATOR.build(SCENE, "json", mask))
    assert found.action is None or legal[found.action]
    if found.probs is not None:
        assert found.probs.sum() == pytest.approx(1)
        assert not found.probs[~mask].any()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=3) | st.sampled_from(list("ABCDE")), st.floats()), LEGAL)
def test_no_first_token_raises_or_gives_an_illegal_action(top, legal):
    found = parse(Completion(first_token=top), GENERATOR.build(SCENE, "label", np.array(legal)))
    assert found.action is None or legal[found.action]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["choices", "usage", "x"]), JSON, max_size=3))
def test_no_body_makes_the_reader_raise(body):
    odd = {"choices": [{"message": body.get("choices"), "logprobs": {"content": body.get("usage")}}]}
    for each in (body, odd):
        found = read_completion(each)
        assert found is None or isinstance(found, Completion)


def test_stored_answers_come_back():
    answer = Completion("x", "", "stop", {"B": -0.5, "C": -math.inf})
    assert load_completion(dump_completion(answer)) == answer
