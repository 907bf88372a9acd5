"""Driving as a language task: situations, outcomes of plans, traces, rewards; the simulator itself is the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from baselines.driving.scenes import LONGEST, TAIL, SituationSource, outcomes, plans, row_of, situations
from baselines.driving.task import DrivingTask
from experts.language.driving_language import read_answer
from experts.language.vocabulary import DRIVING
from sim.actions import MetaAction
from sim.engine.single import EngineEnv
from sim.errors import UsageError

SOURCES = (SituationSource("lane-change"), SituationSource("highway-fast-v0", {"vehicles_density": 1.5}))


@pytest.fixture(scope="module")
def met():
    return situations(SOURCES, 40, 3)


@pytest.fixture(scope="module")
def task(met):
    return DrivingTask(met[:30], met[30:], 2)


def stand_in(situation):
    """A single environment in the situation's state, as any caller would use it."""
    env = sim.make(situation.source.scenario, config=situation.source.config)
    assert isinstance(env, EngineEnv)
    env.reset(seed=0)
    for array, row in zip(env.batch.state, situation.state, strict=True):
        array[0] = row
    return env


def test_situations_are_the_same_for_a_seed_and_others_for_another(met):
    again = situations(SOURCES, 40, 3)
    assert [s.key for s in again] == [s.key for s in met]
    assert [s.picture for s in again] == [s.picture for s in met]
    assert len({s.key for s in met}) == 40
    assert not {s.key for s in situations(SOURCES, 40, 4)} & {s.key for s in met}


def test_a_source_gets_its_share_and_its_config(met):
    assert [s.source.scenario for s in met] == ["lane-change"] * 20 + ["highway-fast-v0"] * 20
    envs = SOURCES[1].envs(1)
    assert envs.config.vehicles_density == 1.5


def test_outcomes_are_what_happens_when_a_plan_is_driven(met):
    """Independent of branching: every plan is stepped through in an environment of its own."""
    for situation in (met[3], met[25]):
        found = outcomes([situation], 1)[0]
        assert found is not None
        returns, fails = [], []
        for plan in plans(1):
            env = stand_in(situation)
            total, crashed, over, success = 0.0, False, False, False
            for action in [*plan, *[MetaAction.IDLE] * TAIL]:
                _, reward, terminated, truncated, info = env.step(int(action))
                total += reward
                crashed = crashed or info["crashed"]
                if terminated or truncated:
                    over, success = True, info["success"]
                    break
            returns.append(total)
            fails.append(crashed or (over and not success))
            assert found.crash[row_of(plan)] == crashed
        best = max(r for r, f in zip(returns, fails, strict=True) if not f)
        worst = min(r for r, f in zip(returns, fails, strict=True) if not f)
        good = [not f and r >= best - 0.1 * (best - worst) - 1e-9 for r, f in zip(returns, fails, strict=True)]
        assert found.good.tolist() == good
        assert found.good[found.best]


def test_the_rules_plan_is_what_the_rule_does(met):
    from experts import registry
    from experts.provider import Context

    rule = registry.make("rule", "lane-change")
    situation = met[7]
    env = stand_in(situation)
    for action in situation.rule[:2]:
        context = Context(np.zeros(1), env.action_space, env.scene(), env.scene().legal)
        assert rule.decide([context])[0].action == action
        env.step(int(action))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=LONGEST))
@settings(max_examples=50, deadline=None)
def test_rows_and_plans_are_inverse(plan):
    assert tuple(plans(len(plan))[row_of(plan)]) == tuple(plan)


def test_every_trace_is_accepted_by_its_own_verifier(task):
    prompts = task.prompts("train")
    traced = [prompt for prompt in prompts if prompt.trace]
    assert traced
    for reward in task.rewards(traced, [prompt.trace.tokens for prompt in traced]):
        assert reward.success
        assert reward.total == pytest.approx(1.0)
        assert reward.parts["facts"] == 1.0


def test_episodes_are_facts_and_meta_actions(task):
    trace = task.prompts("train")[0].trace
    parts = [DRIVING.decode(trace.tokens[a:b]) for a, b in zip((0, *trace.ends), trace.ends, strict=False)]
    assert len(parts) == 3 + task.steps
    assert [part.split()[0] for part in parts[:3]] == ["own", "left", "right"]
    assert parts[2].endswith("</think>")
    assert parts[-1].endswith("<eos>")


def test_facts_count_in_d3_only(met):
    plain, checked = (DrivingTask(met[:10], [], 1, check_facts=facts) for facts in (False, True))
    for prompt in plain.prompts("train"):
        answer = read_answer(DRIVING.decode(prompt.trace.tokens), 1)
        other = "safe" if answer.facts.left != "safe" else "blocked"
        told = f"own {answer.facts.own} ; left {other} ; right {answer.facts.right} ; </think>"
        lie = DRIVING.encode(f"{told} {MetaAction(answer.plan[0]).name} <eos>")
        assert plain.rewards([prompt], [lie])[0].success
        assert not checked.rewards([prompt], [lie])[0].success


@pytest.mark.parametrize("text", ["", "<eos>", "own free ; left safe ; right safe ; </think> IDLE <eos>"])
def test_what_cannot_be_read_earns_nothing(task, text):
    reward = task.rewards([task.prompts("train")[0]], [DRIVING.encode(text)])[0]
    assert (reward.total, reward.success, reward.format) == (0.0, False, False)


def test_traces_keep_to_the_words_that_answers_may_have(task):
    words = {token for prompt in task.prompts("train") for token in prompt.trace.tokens}
    assert all(task.allowed[token] for token in words)


def test_a_share_of_the_prompts_has_traces_and_the_rule_only_where_it_is_good(met):
    some = DrivingTask(met, [], 2, trace_share=0.5, seed=1)
    count = sum(prompt.trace is not None for prompt in some.prompts("train"))
    assert 0.2 < count / len(some.prompts("train")) < 0.8
    by_rule = DrivingTask(met, [], 2, teacher="rule")
    traced = [prompt for prompt in by_rule.prompts("train") if prompt.trace]
    assert 0 < len(traced) < len(by_rule.prompts("train"))
    for prompt in traced:
        answer = read_answer(DRIVING.decode(prompt.trace.tokens), 2)
        assert answer.plan == by_rule.case(prompt.key).situation.rule[:2]


def test_longer_plans_are_harder(met):
    chances = [DrivingTask(met, [], steps).chance("train") for steps in (1, 2, 3)]
    assert chances[0] > chances[1] > chances[2]


def test_bad_arguments_are_refused_in_one_line(met):
    with pytest.raises(UsageError, match="steps = 9: choose 1 to 4"):
        DrivingTask(met, [], 9)
    with pytest.raises(UsageError, match=r"trace_share = 1.5: choose 0 to 1"):
        DrivingTask(met, [], 1, trace_share=1.5)
    with pytest.raises(UsageError, match="scenario 'lane-chnge'"):
        situations([SituationSource("lane-chnge")], 1, 0)
    with pytest.raises(UsageError, match="'intersection-v0' has 3 actions: plans need all 5"):
        situations([SituationSource("intersection-v0")], 1, 0)
    with pytest.raises(UsageError, match="does not run on the engine"):
        situations([SituationSource("carla-highway")], 1, 0)
