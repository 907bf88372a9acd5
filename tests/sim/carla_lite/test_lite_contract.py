"""The contract with the unmodified client of CARLA 0.9.16, call by call, each script of calls in its own process.

Tested against the real client, never against a real server: a real one may differ in what it computes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("carla", reason="the CARLA client is not installed (extra `carla`)")

import lite_clients
import town_files
from lite_servers import Clients, ServerProcess

PATIENCE = 120.0
"""Seconds for one script on a loaded machine."""


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with Clients(lite_clients.__file__) as clients:
        yield clients


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--map", "straight") as server:
        yield server
        assert server.running(), server.errors()
        assert "unknown call" not in server.errors()
        assert "failed" not in server.errors()


@pytest.mark.parametrize("script", lite_clients.SCRIPTS)
def test_the_real_client_finds_that(script, server, clients):
    run(clients, server, script)


@pytest.fixture(scope="module")
def town_server(tmp_path_factory) -> Iterator[ServerProcess]:
    path = tmp_path_factory.mktemp("maps") / "town.xodr"
    path.write_text(town_files.town(), encoding="utf-8")
    with ServerProcess("--map", str(path)) as server:
        yield server
        assert server.running(), server.errors()
        assert "failed" not in server.errors().replace("nowhere", "")


@pytest.mark.parametrize("script", lite_clients.FILE_SCRIPTS)
def test_on_a_map_of_its_own_the_real_client_finds_that(script, town_server, clients):
    run(clients, town_server, script)


def test_a_missing_navigation_mesh_is_said_at_the_start_and_where_a_walker_would_need_it(clients):
    with ServerProcess("--map", "straight") as server:
        assert "no navigation mesh" in server.greeting
        run(clients, server, "settings_are_kept_and_reset_by_a_load_unless_asked_otherwise")
        assert server.errors() == ""
        run(clients, server, "walkers_walk_straight_and_their_ai_has_no_navigation_mesh")
        assert server.errors().count("WalkerControl") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["highway", "intersection", "roundabout", "curve"])
def test_the_traffic_manager_drives_well_and_the_same_way_again_with_the_same_seed(name, server, clients):
    """On `curve` cars begin side by side, and the Traffic Manager lets such neighbours swap lanes immediately."""
    first, second, other = (
        json.loads(run(clients, server, "traffic_report", name, seed, "1000").splitlines()[-1])
        for seed in ("7", "7", "8")
    )
    assert first == second
    assert first["hash"] != other["hash"]
    for report in (first, other):
        assert report["changes"] > 0
        assert (report["off_road"], report["ran_red"]) == (0, 0)
        assert name == "curve" or report["collisions"] == 0
        assert name != "intersection" or min(report["waited"], report["passed"]) > 0


def run(clients: Clients, server: ServerProcess, script: str, *arguments: str) -> str:
    """What a client process printed; the test fails where the process fails or dies."""
    code, words = clients.run([script, str(server.port), *arguments], PATIENCE)
    assert code == 0, words + server.errors()
    return words
