"""`lgdrl collect`, `lgdrl label` and what works with data sets, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experts.data.transition_files import load_transitions
from lgdrl.cli import main
from lgdrl.seeds import DATA_SEED
from tests.recordings import bits

LANE_CHANGE = ["--scenario", "lane-change", "--policy", "rule=3", "--policy", "random"]
QUICK = ["evaluate_every=0", "num_envs=8", "learner_options.core=torch", "learner_options.learning_starts=50"]


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The command in an empty folder. Returns (exit code, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert err.count("\n") == (0 if code == 0 else 1), err
        return code, " ".join(out.split()), err

    return command


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """A data set of 16 episodes on the lane change, with reference returns, and its figures."""
    folder = tmp_path_factory.mktemp("data")
    words = [*LANE_CHANGE, "--episodes", 16, "--reference", "--out", folder / "d.npz", "--json", folder / "d.json"]
    assert main(["collect", *map(str, words)]) == 0
    return folder / "d.npz", json.loads((folder / "d.json").read_text())


def test_a_mixture_is_collected_with_shares_seeds_and_references(data_set):
    path, figures = data_set
    dataset = load_transitions(path)
    rule, random, together = figures["policies"]
    assert (rule["policy"], rule["episodes"], rule["success"]) == ("rule", 12, 1.0)
    assert (random["policy"], random["episodes"], random["success"]) == ("random", 4, 0.0)
    assert together["transitions"] == rule["transitions"] + random["transitions"] == len(dataset)
    assert dataset.seeds.tolist() == list(range(DATA_SEED, DATA_SEED + 16))
    assert rule["return_mean"] == pytest.approx(dataset.returns[dataset.drivers == 0].mean())
    known = dataset.about.references
    assert (known.policy, known.episodes) == ("rule", 20)
    assert figures["references"] == {"random": known.random, "expert": known.expert, "policy": "rule", "episodes": 20}
    assert known.random < -5 < 10 < known.expert


def test_references_do_not_change_what_is_collected(data_set, here):
    assert here("collect", *LANE_CHANGE, "--episodes", 16, "--out", "plain.npz")[0] == 0
    with_them, without = load_transitions(data_set[0]), load_transitions("plain.npz")
    assert without.about.references is None
    assert bits(without.observations) == bits(with_them.observations)
    assert bits(without.actions) == bits(with_them.actions)


@pytest.mark.parametrize(("scenario", "other"), [("gym:CartPole-v1", []), ("gym:Pendulum-v1", ["--policy", "idle"])])
def test_gymnasium_scenarios_with_discrete_and_continuous_actions(here, scenario, other):
    words = ["--scenario", scenario, "--policy", "random", *other, "--mix", "steps", "--seed", 3]
    code, out, _ = here("collect", *words, "--steps", 300, "--out", "g.npz")
    assert (code, f"Transitions of {scenario} (gymnasium)" in out, "success" in out) == (0, True, False)
    dataset = load_transitions("g.npz")
    assert (len(dataset), dataset.seeds[0]) == (300, 3)
    assert len(set(dataset.origin.tolist())) == 1 + bool(other)
    code, out, _ = here("label", "g.npz", "--expert", "random", "--every", 3, "--budget", 50, "--out", "l.npz")
    assert (code, "300, 50 asked about, 50 labelled" in out) == (0, True)
    assert np.flatnonzero(load_transitions("l.npz").labels.given).tolist() == list(range(0, 150, 3))


def test_states_are_labelled_in_their_scenes(data_set, here):
    words = ["--expert", "rule", "--budget", 40, "--seed", 5, "--json", "l.json"]
    code, out, _ = here("label", data_set[0], *words, "--out", "l.npz")
    assert (code, "40 asked about, 40 labelled" in out) == (0, True)
    labelled = load_transitions("l.npz")
    own = labelled.labels.given & (labelled.origin == 0)
    assert own.sum() > 10
    assert (labelled.labels.actions[own] == labelled.actions[own]).all()
    figures = json.loads(Path("l.json").read_text())
    assert (figures["asked"], figures["statuses"]) == (40, {"ok": 40})
    assert labelled.about.made[-1]["budget"] == 40
    code, _, err = here("label", "l.npz", "--expert", "rule", "--out", "again.npz")
    assert (code, "holds labels already" in err) == (2, True)


def test_the_language_model_says_what_its_labels_took(data_set, here, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    code, out, _ = here("label", data_set[0], "--expert", "llm", "--budget", 6, "--out", "l.npz", "--json", "l.json")
    assert (code, "tokens" in out) == (0, True)
    figures = json.loads(Path("l.json").read_text())
    assert figures["tokens"] > 0
    assert sum(figures["statuses"].values()) == figures["asked"] == 6


def test_a_run_learns_from_a_data_set_and_drives_for_another(data_set, here):
    alone = ["--strategy", "sac-demo", "strategy_options.decisions=0", f"demonstrations={data_set[0]}", *QUICK]
    code, out, _ = here("train", "--steps", 200, "--out", "run", *alone)
    assert (code, "with demonstrations from" in out) == (0, True)
    policy = ["--policy", "policy:run=0.5", "--policy", "recorded=0.5", f"policy_options.recorded.path={data_set[0]}"]
    assert here("collect", *policy, "--episodes", 4, "--out", "d.npz")[0] == 0
    assert load_transitions("d.npz").about.origins == ("policy:run", "recorded")


def test_a_data_set_travels_through_minari(data_set, here):
    pytest.importorskip("minari")
    assert here("demos", "export", data_set[0], "lane-change/mixed-v0")[0] == 0
    assert here("demos", "import", "lane-change/mixed-v0", "back.npz")[0] == 0
    assert bits(load_transitions("back.npz")) == bits(load_transitions(data_set[0]))
    code, _, err = here("demos", "import", "lane-change/mixed-v0", "folder")
    assert (code, "name a file OUT.npz" in err) == (2, True)
    code, out, _ = here("demos", "info", "back.npz")
    assert (code, "made collect" in out, "policy rule, episodes 20" in out) == (0, True, True)


MISTAKES = {
    "unknown expert 'rul'": ["--policy", "rul", "--episodes", 1],
    "the share '0' is not a number above 0": ["--policy", "rule=0", "--episodes", 1],
    "named twice": ["--policy", "rule=1", "--policy", "rule", "--episodes", 1],
    "no policy besides random": ["--policy", "random", "--episodes", 1, "--reference"],
    "unknown policy in policy_options": ["--policy", "rule", "--episodes", 1, "policy_options.idm.x=1"],
    "unknown key in config 'lanes'": ["--policy", "rule", "--episodes", 1, "lanes=3"],
    "published: a data set uses many seeds": ["--policy", "rule", "--episodes", 1, "--seed", "published"],
    "observations of several parts": ["--policy", "random", "--episodes", 1, "--scenario", "parking-v0"],
    "needs driving scenes": ["--policy", "thresholds", "--episodes", 1, "--scenario", "gym:CartPole-v1"],
    "of memory": ["--policy", "rule", "--steps", 10**12],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line_and_leave_no_file(here, tmp_path, words):
    code, _, err = here("collect", *MISTAKES[words], "--out", "d.npz")
    assert (code, words in err) == (2, True), err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_labelled_is_one_line(here, tmp_path, data_set):
    (tmp_path / "text.npz").write_text("la la")
    for path, words in (("text.npz", "is not a transition data set"), ("gone.npz", "cannot read data set 'gone.npz'")):
        code, _, err = here("label", path, "--expert", "rule", "--out", "l.npz")
        assert (code, words in err) == (2, True), err
    code, _, err = here("label", data_set[0], "--expert", "rule", "--out", "nowhere/l.npz")
    assert (code, "does not exist: make it first" in err) == (2, True)
    assert (
        here("collect", "--scenario", "gym:CartPole-v1", "--policy", "random", "--steps", 9, "--out", "g.npz")[0] == 0
    )
    code, _, err = here("label", "g.npz", "--expert", "rule", "--out", "l.npz")
    assert (code, "gym:CartPole-v1" in err) == (2, True)
    assert not (tmp_path / "l.npz").exists()
