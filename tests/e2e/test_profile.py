"""`lgdrl profile` as people run it: a report, a gate, faults, and one clear line for bad input."""

from __future__ import annotations

import csv
import json

import pytest

from lgdrl.cli import main

QUICK = ["--quick", "--decisions", "12", "--repeats", "1", "--load", "closed:1,constant:200", "warm_up=3"]


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("profile")
    small = ["quality.scenes=3", "safety.episodes=2", "safety.latencies=[0,4]", "training.decisions=128"]
    words = [word for word in QUICK if word != "--quick"]
    assert main(["profile", "--expert", "rule", "--out", str(out), *words, *small]) == 0
    return out


def test_a_profile_is_four_files_that_agree(folder):
    data = json.loads((folder / "profile.json").read_text())
    assert (data["schema"], data["version"]) == ("lgdrl-profile", 1)
    (scenario,) = data["scenarios"]
    cells = scenario["experts"][0]["cells"]
    assert [cell["queries"] for cell in cells] == [12, 12]
    rows = list(csv.DictReader((folder / "queries.csv").open()))
    assert len(rows) == 2 * (12 + 3)
    assert sum(row["warm_up"] == "True" for row in rows) == 6
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert "http" not in page.replace("http://www.w3.org", "")  # the page loads nothing
    assert "lane-change: latency, ms" in (folder / "report.md").read_text()
    assert scenario["experts"][0]["training"][0]["name"] == "expert off"
    assert scenario["quality"]["scenes"] == 3


def test_a_profile_equals_itself_and_a_slower_one_fails(folder, tmp_path, capsys):
    before = folder / "profile.json"
    assert main(["profile", "compare", str(before), str(before), "--fail-on", "p95=+0%,miss=+0pt"]) == 0
    data = json.loads(before.read_text())
    cell = data["scenarios"][0]["experts"][0]["cells"][0]
    cell["latencies"]["e2e"]["percentiles"]["p50"] *= 2
    after = tmp_path / "after.json"
    after.write_text(json.dumps(data))
    assert main(["profile", "compare", str(before), str(after), "--fail-on", "p50=+50%"]) == 1
    assert "1 regressions" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_over_frequencies_and_a_stall(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--expert", "llm", "--faults", "delay=0.005", "--frequency", "5,10", "--stall", "0.6", "--out", str(out)]
    assert main(["profile", *words, *QUICK]) == 0
    data = json.loads((out / "profile.json").read_text())
    assert [one["label"] for one in data["scenarios"]] == ["lane-change at 5 Hz", "lane-change at 10 Hz"]
    assert [one["deadline_s"] for one in data["scenarios"]] == [0.2, 0.1]
    for scenario in data["scenarios"]:
        stall = scenario["experts"][0]["stall"]
        assert stall["worst_s"] > 0.4  # the server itself was frozen
        assert stall["missed"] >= 8  # every car, once at least; on a busy machine all of them
    shown = capsys.readouterr().out
    assert "Decision frequency" in shown
    assert "a stall" in shown
    assert "Decision frequency" in (out / "report.html").read_text()
    whole = str(out / "profile.json")
    assert main(["profile", "compare", whole, whole, "--fail-on", "p95=+0%"]) == 0


def test_faults_are_served_counted_and_survived(tmp_path, capsys):
    mix = "server_error=0.2,wrong_enum=0.2,delay=0.001"
    words = ["--expert", "llm", "--faults", mix, "--out", str(tmp_path / "out"), *QUICK]
    assert main(["profile", *words, "experts.llm.options.client.backoff_s=0.01"]) == 0
    data = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert data["faults_served"]["wrong_enum"] > 0
    for cell in data["scenarios"][0]["experts"][0]["cells"]:
        assert sum(cell["statuses"].values()) == cell["queries"]
    assert "Faults served" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--expert", "unheard-of"], "unheard-of"),
        (["--load", "closed:x"], "closed:x"),
        (["--frequency", "2,fast"], "'fast'"),
        (["--frequency", "3"], "decision_frequency"),
        (["--stall", "-1"], "stall.seconds = -1"),
        (["--scenario", "moon"], "moon"),
        (["--expert", "rule", "--faults", "full"], "name the expert llm"),
        (["--faults", "sometimes"], "sometimes"),
        (["compare", "nothing.json", "nothing.json"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["profile", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
