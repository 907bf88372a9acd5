"""CARLA's own driving agents, unmodified, on carla-lite. They are not in the client's package and not in this project.

Run with CARLA_PYTHONAPI naming PythonAPI/carla of a CARLA release (0.9.16 was used); they need shapely and networkx.
`CARLA_PYTHONAPI=... python -m pytest -m slow tests/sim/carla_lite/test_lite_agents.py`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lite_servers import ServerProcess

pytest.importorskip("carla", reason="the CARLA client is not installed (extra `carla`)")
PYTHONAPI = os.environ.get("CARLA_PYTHONAPI")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHONAPI is None, reason="CARLA_PYTHONAPI does not name CARLA's PythonAPI/carla"),
]
SCRIPT = Path(__file__).with_name("lite_agents.py")
AGENTS = ("basic", "cautious", "normal", "aggressive")
PATIENCE = 300.0


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--map", "straight") as server:
        yield server
        assert "unknown call" not in server.errors()


def drive(server: ServerProcess, agent: str, name: str, *more: str) -> dict:
    path = os.pathsep.join([str(PYTHONAPI), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, SCRIPT, agent, name, str(server.port), *more]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr + server.errors()
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("name", ["highway", "intersection", "roundabout", "merge"])
def test_an_agent_arrives_on_the_road_and_through_no_red_light(server, agent, name):
    trip = drive(server, agent, name)
    assert trip["arrived"], trip
    assert trip["left"] < 5.0
    assert (trip["ran_red"], trip["collisions"]) == (0, [])
    assert trip["off_road"] <= 3  # a place exactly on the seam of two roads is on neither for the client


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_stays_behind_a_slow_car_without_contact(server, agent):
    trip = drive(server, agent, "highway", "25")
    assert trip["arrived"], trip
    assert trip["collisions"] == []
    assert 8.0 < trip["nearest"] < 30.0
    assert trip["off_road"] <= 3
