"""`lgdrl demos`, and training from recordings, as a user meets them."""

from __future__ import annotations

import json

import pytest

from experts.data.episodes import load_episodes, save_episode
from lgdrl.cli import main
from tests.recordings import bits, drive

QUICK = [
    "evaluate_every=0",
    "num_envs=8",
    "learner_options.hidden=[16,16]",
    "learner_options.learning_starts=50",
    "log_every=100",
]


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The command in an empty folder, beside a recording `takes` of two episodes. Returns (exit code, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for seed, turns in ((0, 100), (1, 6)):
        save_episode(tmp_path / "takes" / f"{seed}", drive(seed=seed, turns=turns))

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert err.count("\n") == (0 if code == 0 else 1), err
        return code, out, err

    return command


def test_info_says_what_a_recording_holds(here, tmp_path):
    code, out, _ = here("demos", "info", "takes", "--json", "info.json")
    assert code == 0
    assert "lane-change" in out
    found = json.loads((tmp_path / "info.json").read_text())
    assert (found["episodes"], found["driven_by"]) == (2, {"expert": found["decisions"]})
    assert found["outcomes"] == {"broken off": 1, "success": 1}


def test_export_and_import_give_the_recording_back(here, tmp_path):
    pytest.importorskip("minari")
    assert here("demos", "export", "takes", "lane-change/rule-v0")[0] == 0
    assert here("demos", "import", "lane-change/rule-v0", "back")[0] == 0
    assert bits(load_episodes(tmp_path / "back")) == bits(load_episodes(tmp_path / "takes"))
    code, _, err = here("demos", "import", "lane-change/rule-v0", "back")
    assert (code, "exists already" in err) == (2, True)
    code, _, err = here("demos", "import", "lane-change/rule-v0", "one.npz")
    assert (code, "holds 2 episodes" in err) == (2, True)
    code, _, err = here("demos", "export", "takes", "lane-change/rule-v0")
    assert (code, "exists already" in err) == (2, True)


def test_what_is_no_recording_is_one_line(here, tmp_path):
    (tmp_path / "song.npz").write_text("la la")
    for path in ("song.npz", "nothing.npz", "minari"):
        code, _, err = here("demos", "info", path)
        assert (code, path in err) == (2, True)


def test_training_and_advice_from_a_recording(here):
    demo = ["--strategy", "sac-demo", "strategy_options.decisions=0", "demonstrations=takes"]
    code, out, _ = here("train", "--steps", "200", "--out", "alone", *demo, *QUICK)
    assert code == 0
    assert "with demonstrations from takes" in " ".join(out.split())
    assert "guided by" not in out
    advised = ["--expert", "recorded", "expert_options.path=takes", "demonstrations=takes"]
    assert here("train", "--steps", "200", "--out", "advised", *advised, *QUICK)[0] == 0
    driven = ["--expert", "recorded", "--episodes", "3", "expert_options.path=takes"]
    assert here("evaluate", *driven)[0] == 0
    code, _, err = here("train", "--scenario", "highway-fast-v0", "--out", "other", *demo, *QUICK)
    assert (code, "is of scenario 'lane-change', not 'highway-fast-v0'" in err) == (2, True)
