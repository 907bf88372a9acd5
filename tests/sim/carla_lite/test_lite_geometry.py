"""What the real client sees on carla-lite agrees with geometry, script by script in a process of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("carla", reason="the CARLA client is not installed (extra `carla`)")

import lite_geometry
from lite_servers import Clients, ServerProcess

PATIENCE = 120.0
"""Seconds for one script on a loaded machine."""


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--map", "lane_change") as server:
        yield server
        assert server.running(), server.errors()
        assert server.errors() == ""


@pytest.fixture(scope="module")
def clients():
    with Clients(lite_geometry.__file__) as clients:
        yield clients


@pytest.mark.parametrize("script", lite_geometry.SCRIPTS)
def test_the_real_client_sees_that(script, server, clients):
    code, words = clients.run([script, str(server.port)], PATIENCE)
    assert code == 0, words + server.errors()
