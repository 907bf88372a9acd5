"""Comparisons: scores over training seeds, paired differences, and references that fit what is compared."""

from __future__ import annotations

import math

import pytest
import scipy.stats

from lgdrl import training
from lgdrl.comparison import CompareConfig, Row, cells, columns_of, compare, default_references, markdown
from lgdrl.config import RunConfig
from lgdrl.runs import Run
from lgdrl.statistics import Rate
from sim.errors import UsageError


def result(successes: int, total: int = 100, **measures) -> dict:
    """An `evaluation.json`."""
    rest = {"episodes": total, "return_mean": 1.0, "return_iqm": 1.0, "labels": 7, "interventions": 0}
    others = {"crash": Rate(total - successes, total).to_dict(), "missed": Rate(0, total).to_dict()}
    return {"success": Rate(successes, total).to_dict(), **others, "mean_speed_m_s": 15.0, **rest, **measures}


def returns(value: float) -> dict:
    """An `evaluation.json` of a scenario without success."""
    return {"episodes": 10, "return_mean": value, "return_iqm": value, "labels": 0, "interventions": 0}


def test_a_methods_interval_is_over_its_training_seeds():
    row = Row("a", "trained", [result(n) for n in (90, 80, 95)])
    expected = scipy.stats.t.interval(0.95, 2, loc=265 / 3, scale=scipy.stats.sem([90, 80, 95]))
    assert row.score.mean == pytest.approx(265 / 3)
    assert row.score.low == pytest.approx(expected[0])
    assert row.score.high == 100.0 < expected[1], "a share ends at 100 %"


def test_one_training_seed_and_references_are_single_policies_with_wilsons_interval():
    for kind in ("trained", "expert", "trivial"):
        row = Row("a", kind, [result(90)])
        low, high = scipy.stats.binomtest(90, 100).proportion_ci(method="wilson")
        assert row.score == pytest.approx((90, 100 * low, 100 * high))


def test_differences_are_paired_by_training_seed():
    base = Row("base", "trained", [result(n) for n in (50, 60, 70)])
    row = Row("better", "trained", [result(n) for n in (55, 64, 77)], base)
    expected = scipy.stats.ttest_rel([55, 64, 77], [50, 60, 70])
    assert row.difference.mean == pytest.approx(16 / 3)
    assert row.difference.p_value == pytest.approx(expected.pvalue)
    assert (row.difference.low, row.difference.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_scenario_without_success_is_scored_by_its_return():
    row = Row("a", "trained", [returns(v) for v in (10.0, 20.0)])
    assert row.per_seed == [10.0, 20.0]
    assert row.score.mean == 15.0
    reference = Row("random", "trivial", [returns(3.0)])
    assert math.isnan(reference.score.low)
    columns = columns_of([row, reference])
    assert columns == ["Driver", "Return [95 %]", "per training seed", "Labels"]
    assert cells(reference, columns) == ["random", "3.00", "-", "-"]


def test_the_table_has_a_column_for_differences_where_seeds_allow_one():
    base = Row("base", "trained", [result(50), result(60)])
    text = markdown([base, Row("other", "trained", [result(55), result(66)], base)])
    assert "Difference [95 %], p" in text
    assert "+5.5 [" in text
    alone = Row("base", "trained", [result(50)])
    assert "Difference" not in markdown([alone, Row("other", "trained", [result(55)], alone)])


@pytest.mark.parametrize(
    ("changes", "references"),
    [
        ([{}], ("rule", "idm", "slower", "idle", "random")),
        ([{"strategy": "sac"}, {"scenario": "gym:CartPole-v1", "strategy": "sac"}], ("random",)),
        ([{"strategy": "bread"}], ()),
        ([{"strategy": "sac"}, {"strategy": "bread"}], ()),
    ],
)
def test_references_fit_the_runs(changes, references):
    assert default_references([RunConfig(**each) for each in changes]) == references


QUICK = {
    "steps": 200,
    "num_envs": 4,
    "log_every": 200,
    "evaluate_every": 0,
    "learner_options": {"hidden": [8, 8], "learning_starts": 100, "batch_size": 16},
}


def test_a_comparison_on_a_gymnasium_environment_has_returns_and_a_random_reference(tmp_path):
    base = QUICK | {"scenario": "gym:CartPole-v1"}
    config = CompareConfig(base=base, arms={"sac": {"strategy": "sac"}}, seeds=(0, 1), episodes=3)
    rows = compare(config, tmp_path / "out")
    assert [row.name for row in rows] == ["sac", "random"]
    assert all(row.score.mean > 0 for row in rows)
    again = compare(config, tmp_path / "out")
    assert [row.to_dict() for row in again] == [row.to_dict() for row in rows]


def test_a_trained_run_can_be_a_reference(tmp_path):
    trainer = training.start(RunConfig(**QUICK, strategy="sac"), tmp_path / "first")
    assert trainer.train()
    trainer.close()
    name = f"policy:{tmp_path / 'first'}"
    config = CompareConfig(base=QUICK, seeds=(0,), references=(name,), episodes=3)
    (row,) = compare(config, tmp_path / "second")
    trained = training.evaluate_run(Run(tmp_path / "first"), 3, config.first_seed).to_dict()
    assert (row.name, row.kind) == (name, "expert")
    assert row.results[0]["return_mean"] == trained["return_mean"]
    assert [path.parent for path in (tmp_path / "second").rglob("*.json")].count(
        tmp_path / "second" / "references"
    ) == 1


def test_differences_to_a_method_that_is_not_compared_are_refused():
    with pytest.raises(ValueError, match="against = 'c' is not among the methods: a, b"):
        CompareConfig(arms={"a": {}, "b": {}}, against="c")
    with pytest.raises(UsageError, match="unknown strategy"):
        compare(CompareConfig(arms={"a": {"strategy": "lgdlr"}}), "unused")


# -------------------------------------------------------------------------------------------- over label budgets

SWEEP = {"arms": {"lgdrl": {}, "sac-bc": {"strategy": "sac-bc"}, "sac": {"strategy": "sac", "label_budget": 0}}}


def test_every_arm_is_trained_at_each_label_budget_except_those_that_name_one():
    config = CompareConfig(**SWEEP, label_budgets=(20, 50))
    assert [arm.name for arm in config.trained] == ["lgdrl-20", "lgdrl-50", "sac-bc-20", "sac-bc-50", "sac"]
    assert [arm.changes["label_budget"] for arm in config.trained] == [20, 50, 20, 50, 0]
    assert [arm.method for arm in config.trained] == ["lgdrl", "lgdrl", "sac-bc", "sac-bc", "sac"]
    assert [arm.name for arm in CompareConfig(**SWEEP).trained] == ["lgdrl", "sac-bc", "sac"]


@pytest.mark.parametrize(
    ("against", "expected"),
    [
        (None, ["lgdrl-20", "lgdrl-50", "lgdrl-20", "lgdrl-50", None]),  # plain SAC has no budget of its own
        ("sac", ["sac"] * 5),
    ],
)
def test_differences_over_label_budgets_are_within_one(against, expected):
    config = CompareConfig(**SWEEP, label_budgets=(20, 50), against=against)
    assert [config.reference_of(arm) for arm in config.trained] == expected


@pytest.mark.parametrize("budgets", [(), (20, 20)])
def test_label_budgets_that_make_no_curve_are_refused(budgets):
    with pytest.raises(ValueError, match="choose at least one, each once"):
        CompareConfig(label_budgets=budgets)


def test_a_comparison_over_label_budgets_asks_for_as_many_labels_and_draws_the_curve(tmp_path):
    base = {"steps": 600, "learner_options": {"learning_starts": 100}, "evaluate_every": 0, "num_envs": 4}
    config = CompareConfig(base, SWEEP["arms"], label_budgets=(0, 20), seeds=(0,), references=(), episodes=2)
    rows = {row.name: row for row in compare(config, tmp_path / "c", jobs=1)}
    assert {name: row.labels for name, row in rows.items()} == {
        "lgdrl-0": 0, "lgdrl-20": 20, "sac-bc-0": 0, "sac-bc-20": 20, "sac": 0,
    }  # fmt: skip
    assert rows["sac-bc-20"].against is not None
    assert rows["sac-bc-20"].against.name == "lgdrl-20"
    assert (rows["lgdrl-20"].to_dict()["method"], rows["lgdrl-20"].to_dict()["label_budget"]) == ("lgdrl", 20)
    assert (tmp_path / "c" / "labels.png").stat().st_size > 10_000
