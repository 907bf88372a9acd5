"""What the real client sees on carla-lite agrees with geometry, script by script in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("carla", reason="the CARLA client is not installed (extra `carla`)")

import lite_geometry
from lite_servers import ServerProcess, run_client

PATIENCE = 120.0
"""Seconds for one script on a loaded machine."""


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--map", "lane_change") as server:
        yield server
        assert server.running(), server.errors()
        assert server.errors() == ""


@pytest.mark.parametrize("script", lite_geometry.SCRIPTS)
def test_the_real_client_sees_that(script, server):
    command = [sys.executable, lite_geometry.__file__, script, str(server.port)]
    done = run_client(command, Path(lite_geometry.__file__).parent, PATIENCE)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode() + server.errors()
