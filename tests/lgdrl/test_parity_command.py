"""`lgdrl bench sim --parity`: what it counts, what it says, and how it exits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from lgdrl.cli import main
from lgdrl.parity.command import ParityRow, parity_table, verdict


def row(pinned: bool, differ: int = 0, **more) -> ParityRow:
    values = {"scenario": "highway-fast-v0", "decisions": 90, "observations": 95, "first_difference": None}
    values |= {"observations_differ": differ, "decisions_differ": differ, "largest_difference": differ * 1e-13}
    return ParityRow(pinned=pinned, **(values | more))


def test_equality_is_claimed_only_where_it_was_seen():
    assert verdict([row(True), row(False)]) == "Equal bit for bit with NumPy and BLAS pinned; and equal as they are."
    assert "after 4 decisions highway-env itself rounds differently" in verdict([row(True), row(False, 4)])
    broken = row(True, 2, first_difference="speed[0]: 1.0 on highway-env, 2.0 on the engine, 3 ulp apart")
    assert verdict([broken, row(False)]).startswith("NOT equal on highway-fast-v0")
    assert "speed[0]" in verdict([broken, row(False)])


def test_the_table_fits_80_columns_and_names_the_settings():
    console = Console(width=80, record=True)
    console.print(parity_table([row(True), row(False, 4)]))
    text = console.export_text()
    assert "0 of 95" in text
    assert "4 of 95" in text
    assert "4.0e-13" in text
    assert "OPENBLAS_CORETYPE" in text


def test_differences_are_counted_to_the_end_of_the_drive(monkeypatch):
    from lgdrl.parity import pair as parity

    both = parity.Pair("highway-fast-v0", {"vehicles_count": 3})
    clean = parity.count_differences(both, seed=0, decisions=6)
    assert (clean["decisions"], clean["observations"] >= 7) == (6, True)
    observe = both.env.inner.observation_type.__class__.observe

    def shifted(self):
        return observe(self) + np.float32(0.25)

    monkeypatch.setattr(both.env.inner.observation_type.__class__, "observe", shifted)
    found = parity.count_differences(both, seed=0, decisions=6)
    assert found["differ"] == found["observations"]
    assert found["values"] == found["decisions"] == 6
    assert found["largest"] == pytest.approx(0.25)
    assert found["first"].startswith("observation[0]")


def test_settings_that_do_not_go_together_are_refused(capsys):
    assert main(["bench", "sim", "--parity", "--scenario", "carla-roundabout"]) == 2
    assert "not on the engine" in capsys.readouterr().err
    assert main(["bench", "sim", "--parity", "--plot", "x.png", "--scenario", "highway-fast-v0"]) == 2
    assert "leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_shows_equality_on_this_machine(tmp_path, capsys):
    path = tmp_path / "parity.json"
    assert main(["bench", "sim", "--parity", "--scenario", "lane-change", "--decisions", "4", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(each["pinned"], each["decisions"]) for each in rows] == [(True, 4), (False, 4)]
    assert rows[0]["observations_differ"] == 0
    assert "Equal bit for bit" in capsys.readouterr().out
