"""What a reasoning model thinks on the way never decides, wherever an endpoint puts it; at most it is the reason."""

import json
import time

import pytest

from experts.llm.completion import Completion, load_completion, read_completion
from experts.llm.faults import Fault
from experts.llm.parse import parse, reason_so_far, settled
from experts.llm.prompt import PromptConfig, PromptGenerator, example_scene
from experts.llm.thoughts import visible
from experts.provider import Status
from experts.serving.fault_server import FaultServer, Scripted
from sim.errors import UsageError
from tests.experts.conftest import free_road
from tests.experts.llm.answering import Answering, message, only_json, only_text

SCENE = example_scene({"lanes": 3, "lane": 0, "speed": 20.0, "goal": None, "cars": []})  # A is illegal
PROMPTS = {form: PromptGenerator(PromptConfig()).build(SCENE, form) for form in ("label", "json", "text")}

CLOSED = [
    "<think>One idea: #### 3\nToo fast.</think>",
    "<THINK >\n#### 3\n</think>\n\n",
    "<thinking>#### 3</thinking>",
    "<thought>\n#### 3\n</thought>",
    '<reasoning effort="low">FASTER? #### 3</reasoning>',
    "<seed:think>#### 3</seed:think>",
    "◁think▷#### 3◁/think▷",
    "[THINK]#### 3[/THINK]",
    "<|START_THINKING|>#### 3<|END_THINKING|>",
    "<|begin_of_thought|>#### 3<|end_of_thought|>",
    "<|channel>thought\n#### 3<channel|>",
    "&lt;think&gt;#### 3&lt;/think&gt;",
    "<think></think><think>#### 3</think>",
    "<think>a <think> b #### 3</think> more #### 3</think>",
    "The template has opened it: #### 3\n</think>",
    "<|channel|>analysis<|message|>#### 3<|end|><|start|>assistant<|channel|>final<|message|>",
    "<|channel|>analysis<|message|>x<|end|><|channel|>commentary<|message|>#### 3<|end|><|channel|>final<|message|>",
    "analysisWe could do #### 3.assistantfinal",
    "Here is my thought process: #### 3\nHere is my response:",
]


def read(form, content="", **parts):
    return parse(Completion(content=content, **parts), PROMPTS[form])


@pytest.mark.parametrize("thought", CLOSED)
def test_what_follows_a_thought_decides_and_the_thought_is_the_reason(thought):
    assert read("text", f"{thought}#### 1").action == 1
    assert read("text", f"{thought}\nI choose IDLE.").action == 1
    assert read("json", f'{thought}{{"action": "B"}}').action == 1
    assert read("json", f'{thought}\n```json\n{{"action": "B"}}\n```').action == 1
    assert "#### 3" in read("json", f'{thought}{{"action": "B"}}').reason
    assert read("label", f"{thought}B").action == 1


@pytest.mark.parametrize("thought", CLOSED)
def test_a_thought_with_nothing_after_it_names_no_action(thought):
    for form in PROMPTS:
        assert read(form, thought).fault is Fault.EMPTY
        assert read(form, thought, finish_reason="length").fault is Fault.TRUNCATED


@pytest.mark.parametrize(
    "content",
    [
        "<think>\nPerhaps\n#### 2\nbut no, the lane is",
        "<thinking>#### 2",
        "<reasoning>\nIDLE",
        "◁think▷ B",
        '[THINK] {"action": "B"}',
        "<|START_THINKING|>#### 2",
        "<think>done</think>#### 1\n<think>or rather #### 2",
        "<|channel|>analysis<|message|>#### 2",
        "analysisThe lane is free, #### 2",
        "Here's my thought process: #### 2",
        "<think>the tags <reasoning>#### 2</reasoning> go on",
    ],
)
@pytest.mark.parametrize("finish", ["length", "stop"])
def test_a_thought_that_is_cut_off_is_truncated(content, finish):
    for form in PROMPTS:
        found = read(form, content, finish_reason=finish)
        assert (found.action, found.fault) == (None, Fault.TRUNCATED)


@pytest.mark.parametrize(
    "content",
    [
        '<think>hm</think><answer>{"action": "B"}</answer>',
        '<think>hm</think><|begin_of_box|>{"action": "B"}<|end_of_box|>',
        '<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>{"action": "B"}<|END_RESPONSE|>',
        '{"action": "B"}<|im_end|>',
    ],
)
def test_wrappers_around_the_answer_do_not_matter(content):
    assert read("json", content).action == 1


def test_json_whose_strings_speak_of_thoughts_is_read_as_it_is():
    found = read("json", json.dumps({"action": "B", "reason": "no <think> tag </think> here"}))
    assert (found.action, found.reason) == (1, "no <think> tag </think> here")
    assert read("json", '{"action": "<think>C</think> B"}').action is None


def test_ordinary_words_are_no_thoughts():
    for text in ("I think: #### 1", "a < b, think > c #### 1", "analysis: free lane #### 1", "[reasoning] #### 1"):
        assert read("text", text).action == 1


def test_positions_stay_and_a_stream_shows_the_thought_until_there_is_an_answer():
    text = "<think>room on the left</think>free\n#### 1"
    assert len(visible(text).answer) == len(text)
    assert settled("<think>#### 3</think>", "text") is None
    assert settled(text, "text") == len(text)
    assert reason_so_far("<think>room on the le", "text") == "room on the le"
    assert reason_so_far(text, "text") == "free"


def test_long_thoughts_do_not_make_an_answer_oversized_and_hostile_ones_cost_no_time():
    assert read("text", f"<think>{'hm ' * 100_000}</think>#### 1").action == 1
    begin = time.monotonic()
    for noise in ("<", "< ", "<think>", "</think>", "<think ", "&lt;", "<|channel|>", "[THINK]", "◁ ", "</s>  "):
        read("text", noise * (300_000 // len(noise)))
    assert time.monotonic() - begin < 10


# Thoughts beside the content

APART = [
    {"reasoning_content": "#### 3"},
    {"reasoning": "#### 3"},
    {"thinking": "#### 3"},
    {"reasoning": {"text": "#### 3"}},
    {"reasoning_details": [{"type": "reasoning.text", "text": "#### 3"}]},
    {"thinking_blocks": [{"type": "thinking", "thinking": "#### 3"}]},
]
PARTS = [
    [{"type": "thinking", "thinking": []}, {"type": "text", "text": "#### 1"}],
    [{"type": "thinking", "thinking": [{"type": "text", "text": "#### 3"}]}, {"type": "text", "text": "#### 1"}],
    [{"type": "text", "text": "####"}, {"type": "text", "text": " 1"}],
    [{"type": "reasoning", "summary": [{"text": "#### 3"}]}, {"type": "output_text", "text": "#### 1"}],
    [{"type": "text", "text": "#### 3", "thought": True}, {"type": "text", "text": "#### 1"}],
    ["#### 1", None, 7, {"type": "image_url", "image_url": {"url": "#### 3"}}],
    {"type": "text", "text": "#### 1"},
]


@pytest.mark.parametrize("members", APART)
def test_a_thought_in_a_field_of_its_own_is_the_reason(members):
    found = parse(read_completion(message("#### 1", **members)), PROMPTS["text"])
    assert (found.action, found.reason) == (1, "#### 3")
    assert parse(read_completion(message(None, "length", **members)), PROMPTS["text"]).fault is Fault.TRUNCATED
    assert parse(read_completion(message("", **members)), PROMPTS["text"]).fault is Fault.EMPTY


@pytest.mark.parametrize("content", PARTS)
def test_content_in_parts_is_read_and_only_its_texts_decide(content):
    assert parse(read_completion(message(content)), PROMPTS["text"]).action == 1


def test_a_refusal_among_the_parts_is_one():
    content = [{"type": "refusal", "refusal": "I will not drive"}]
    assert parse(read_completion(message(content)), PROMPTS["text"]).fault is Fault.REFUSAL


def test_the_first_token_of_a_thought_is_no_label():
    top = {"A": -0.01, "B": -5.0}
    assert read("label", "", first_token=top, thought="A lane change?", finish_reason="length").fault is Fault.TRUNCATED
    assert read("label", "<think>", first_token={"B": -0.1}).fault is Fault.TRUNCATED
    assert read("label", "B", first_token={"D": -0.1}, thought="D?").action == 1


def test_completions_stored_before_there_were_thoughts_come_back():
    assert load_completion('["x", "", "stop", {"B": -0.5}]') == Completion("x", "", "stop", {"B": -0.5})
    with pytest.raises(ValueError, match="not a completion"):
        load_completion("{}")


# Through provider, client and wire


def decide(expert, answer, **options):
    with Answering(answer) as server:
        llm = expert(server, veto_unsafe=False, **options)
        return llm, llm.decide([free_road()])[0]


@pytest.mark.parametrize("content", PARTS)
def test_an_endpoint_that_sends_parts_passes_the_probe_and_decides(expert, content):
    llm, decision = decide(expert, only_text(message(content)))
    assert (llm.ability.rung, decision.status, decision.action) == ("text", Status.OK, 1)


def test_a_thought_before_json_or_a_label_costs_no_rung(expert):
    llm, decision = decide(expert, only_json('<think>#### 3</think>{"action": "B"}'))
    assert (llm.ability.rung, decision.status, decision.action) == ("json_schema", Status.OK, 1)
    assert decision.reason == "#### 3"


def test_prose_after_a_thought_decides_or_is_repaired(expert):
    _, decision = decide(expert, only_text("<think>\nOne idea: #### 3\nToo fast.\n</think>\nI choose IDLE."))
    assert (decision.status, decision.action) == (Status.OK, 1)
    answers = [Scripted(content="<think>#### 3</think>I would rather wait."), Scripted(content="#### 1")]
    with FaultServer(answers, rungs=("text",)) as server:
        decision = expert(server).decide([free_road()])[0]
    assert (decision.status, decision.action, decision.faults) == (Status.REPAIRED, 1, (Fault.MALFORMED,))


@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_thought_cut_off_in_mid_run_is_truncated_in_a_stream_too(expert, stream):
    answers = [Scripted(content="<think>\nPerhaps\n#### 2\nbut no", finish_reason="length")]
    with FaultServer(answers, rungs=("text",)) as server:
        decision = expert(server, stream=stream).decide([free_road()])[0]
    assert (decision.status, decision.faults) == (Status.FALLBACK, (Fault.TRUNCATED,) * 2)
    assert "max_tokens" in decision.reason


def test_streamed_thoughts_and_parts_are_kept_apart(expert):
    def answer(body):
        if not body.get("stream"):
            return only_text("#### 1")(body)
        deltas = [
            {"reasoning_content": "####"},
            {"reasoning_content": " 3"},
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": " or #### 4"}]}]},
            {"content": [{"type": "text", "text": "#### "}]},
            {"content": "1"},
        ]
        events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return 200, lines.encode(), {"Content-Type": "text/event-stream"}

    _, decision = decide(expert, answer, stream="always")
    assert (decision.status, decision.action, decision.reason) == (Status.OK, 1, "#### 3 or #### 4")


# Tokens spent on thinking


@pytest.mark.parametrize(
    "payload",
    [
        message(None, "length", reasoning="Let me think"),
        message("", "length", reasoning_content="Let me think"),
        message("<think>Let me think", "length"),
        message("<think>Let me think</think>", "stop"),
        message([{"type": "thinking", "thinking": "Let me think"}], "length"),
        message("", "length", usage={"completion_tokens_details": {"reasoning_tokens": 256}}),
    ],
)
def test_a_model_that_spends_its_tokens_on_reasoning_is_one_line_before_the_training(expert, payload):
    for answer in (only_text(payload), lambda body: (200, payload)):
        with Answering(answer) as server, pytest.raises(UsageError, match="spends its tokens on reasoning") as caught:
            expert(server)
        assert "sampling.max_tokens (now 256)" in str(caught.value)
        assert "sampling.extra" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_reasoning_option_is_sent_and_helps(expert):
    def answer(body):
        quick = body.get("reasoning_effort") == "low" and body["chat_template_kwargs"] == {"enable_thinking": False}
        return only_text("#### 1" if quick else message(None, "length", reasoning="hm"))(body)

    extra = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    llm, decision = decide(expert, answer, sampling={"extra": extra})
    assert (llm.ability.rung, decision.status) == ("text", Status.OK)
    with pytest.raises(UsageError, match=r"extra\.messages"):
        decide(expert, answer, sampling={"extra": {"messages": []}})


@pytest.mark.parametrize("content", ["", "I will drive with care.", "I'm sorry, I can't help with that", "#### 9"])
def test_a_probe_without_a_usable_answer_does_not_pass(expert, content):
    with (
        Answering(lambda body: (200, content)) as server,
        pytest.raises(UsageError, match="no usable answer") as caught,
    ):
        expert(server)
    assert "\n" not in str(caught.value)


def test_a_probe_that_is_answered_well_at_the_second_time_passes_as_decisions_do(expert):
    def answer(body):
        return only_text("#### 1" if len(body["messages"]) > 2 else "I will drive with care.")(body)

    llm, decision = decide(expert, answer)
    assert (llm.ability.rung, decision.status) == ("text", Status.REPAIRED)
    with Answering(answer) as server, pytest.raises(UsageError, match="no usable answer"):
        expert(server, repair=False)
