"""`lgdrl list --coverage` says what the engine and highway-env themselves do with the same settings."""

from __future__ import annotations

import json

import pytest

import sim
from lgdrl.cli import main
from lgdrl.coverage import CODES, SETTINGS, coverage, coverage_table
from sim.highway.catalog import HIGHWAY_ENV_SCENARIOS


@pytest.fixture(scope="module")
def rows():
    return coverage()


def test_every_scenario_of_the_catalog_has_every_setting_once(rows):
    assert [row.scenario for row in rows] == [scenario.name for scenario in HIGHWAY_ENV_SCENARIOS]
    for row in rows:
        assert sorted((*row.covered, *row.left, *row.refused)) == sorted(SETTINGS)
    assert CODES.keys() == SETTINGS.keys()
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("name", ["highway-fast-v0", "roundabout-v1", "u-turn-v0", "merge-v0"])
def test_marks_are_where_environments_are_made(rows, name):
    row = next(row for row in rows if row.scenario == name)
    assert row.family == name.rpartition("-")[0].removesuffix("-fast")
    for setting in ("DiscreteMetaAction", "Kinematics", "LidarObservation", "other_vehicles_type"):
        backend = sim.make(name, config=SETTINGS[setting]).backend
        assert backend == ("engine" if setting in row.covered else "highway-env")


def test_the_command_prints_one_line_per_scenario_and_writes_json(tmp_path, capsys, rows):
    path = tmp_path / "coverage.json"
    assert main(["list", "--coverage", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert sum(line.startswith(row.scenario + " ") for row in rows for line in lines) == len(rows)
    assert "left to highway-env: observation type GrayscaleObservation" in printed
    written = json.loads(path.read_text(encoding="utf-8"))["coverage"]
    assert written == json.loads(json.dumps([row.to_dict() for row in rows]))
    assert coverage_table(rows).row_count == len(rows)


def test_coverage_is_of_scenarios_alone(capsys):
    assert main(["list", "experts", "--coverage"]) == 2
    assert "leave 'experts' out" in capsys.readouterr().err
