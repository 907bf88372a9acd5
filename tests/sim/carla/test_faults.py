"""A server that fails ends an episode, never the run: the next one is clean, and nothing is left behind.

The real client is tested against a carla-lite that injects faults.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import sim
from lgdrl.cli import main
from sim.carla.env import CarlaDrivingEnv
from sim.carla.errors import SimUnreachable, SimVersionMismatch
from sim.carla.lane_change import LaneChangeTask
from sim.carla.servers import LiteServer, RunningServer
from sim.carla.session import Address, CarlaSession, Patience, free_port
from sim.config import resolve
from sim.lane_change import LaneChangeConfig

pytest.importorskip("carla", reason="the CARLA client is not installed (extra `carla`)")

QUICK = Patience(connect=10.0, load=20.0, response=3.0)
CONFIG = resolve(LaneChangeConfig(), {"density": [4, 4]})


class FailsOnce(LiteServer):
    """A carla-lite that misbehaves until it is started again."""

    def start(self) -> Address:
        address = super().start()
        self.options = ()
        return address


def env_on(server, patience: Patience = QUICK) -> CarlaDrivingEnv:
    return CarlaDrivingEnv("lane-change", CONFIG, LaneChangeTask(CONFIG), server, patience=patience)


def drive_until_broken(env: CarlaDrivingEnv) -> dict:
    env.reset(seed=0)
    for _ in range(60):
        obs, reward, terminated, truncated, info = env.step(4)
        if terminated or truncated:
            break
    assert truncated
    assert not terminated
    assert obs.shape == env.observation_space.shape
    assert np.isfinite(obs).all()
    assert reward == 0.0
    return info


def assert_clean(env: CarlaDrivingEnv) -> None:
    """A new start works, and no other actors are on the server."""
    env.reset(seed=1)
    for _ in range(3):
        _, _, terminated, truncated, info = env.step(1)
        assert not terminated
        assert not truncated
        assert "sim_error" not in info
    cars = env._session.world.get_actors().filter("vehicle.*")
    assert len(cars) == 1 + len(env._episode.traffic.ids)


@pytest.mark.slow
def test_a_server_that_dies_truncates_the_episode_and_is_started_again():
    env = env_on(FailsOnce(("--fault", "die@45")))
    info = drive_until_broken(env)
    assert "died" in info["sim_error"]
    assert info["outcome"] == "missed"
    assert info["summary"]["steps"] >= 3
    assert_clean(env)
    process = env.server._process
    env.close()
    assert process.poll() is not None


def test_a_server_that_is_killed_in_the_middle_of_a_frame_truncates_the_episode():
    env = env_on(LiteServer())
    env.reset(seed=0)
    killer = threading.Timer(0.2, lambda: os.kill(env.server._process.pid, signal.SIGKILL))
    killer.start()
    started = time.monotonic()
    truncated = False
    while not truncated:
        _, _, terminated, truncated, info = env.step(4)
        if terminated:
            env.reset()
    assert time.monotonic() - started < 15.0
    assert "died" in info["sim_error"]
    assert_clean(env)
    env.close()


def test_a_stream_that_stalls_is_a_time_out():
    env = env_on(FailsOnce(("--fault", "stall-stream@30")))
    info = drive_until_broken(env)
    assert "within 3 s" in info["sim_error"]
    assert_clean(env)
    env.close()


@pytest.mark.slow
def test_a_map_that_loads_too_slowly_is_tried_again(caplog):
    env = env_on(FailsOnce(("--fault", "slow-load=6")), Patience(connect=10.0, load=1.0, response=3.0))
    env.reset(seed=0)
    assert "load an OpenDRIVE map" in caplog.text
    assert_clean(env)
    env.close()


def test_refused_spawns_are_tried_again(caplog):
    env = env_on(FailsOnce(("--fault", "refuse-spawn=1")))
    env.reset(seed=0)
    assert "refuses vehicle.tesla.model3" in caplog.text
    assert_clean(env)
    env.close()


def test_another_version_is_bad_input_in_one_line():
    env = env_on(LiteServer(("--fault", "version=0.9.15")))
    with pytest.raises(
        SimVersionMismatch, match=r"is version 0\.9\.15, the client 0\.9\.16: use the same version"
    ) as told:
        env.reset(seed=0)
    assert "\n" not in str(told.value)
    env.close()


def test_an_address_without_a_server_is_bad_input_in_one_line():
    env = env_on(RunningServer(Address("127.0.0.1", free_port())), Patience(connect=0.5))
    with pytest.raises(SimUnreachable, match=r"no CARLA server responds at .* within 0\.5 s"):
        env.reset(seed=0)


def test_a_training_that_cannot_begin_leaves_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sim.carla.env.Patience", lambda: Patience(connect=0.5))
    place = f"carla@127.0.0.1:{free_port()}"
    assert main(["train", "--backend", place, "--out", str(tmp_path / "run"), "--steps", "50"]) == 2
    assert "no CARLA server responds" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_program_that_listens_there_is_no_server():
    with socket.create_server(("127.0.0.1", 0)) as other:
        env = env_on(RunningServer(Address("127.0.0.1", other.getsockname()[1])), Patience(connect=1.0))
        with pytest.raises(SimUnreachable):
            env.reset(seed=0)


@pytest.fixture
def running():
    """A server that another program started."""
    server = LiteServer()
    yield server.start()
    server.stop()


def settings_of(address: Address):
    import carla

    client = carla.Client(address.host, address.port, 2)
    client.set_timeout(5.0)
    return client.get_world().get_settings()


def test_a_session_leaves_the_server_as_it_was_found(running):
    before = settings_of(running)
    assert not before.synchronous_mode
    env = env_on(RunningServer(running))
    env.reset(seed=0)
    env.step(1)
    assert settings_of(running).synchronous_mode
    env.close()
    after = settings_of(running)
    assert after.synchronous_mode == before.synchronous_mode
    assert after.fixed_delta_seconds == before.fixed_delta_seconds


def test_what_a_dead_program_left_behind_is_destroyed(running):
    program = f"""
        import os
        from sim.carla.session import Address, CarlaSession
        session = CarlaSession(Address({running.host!r}, {running.port}))
        session.connect()
        blueprint = session.blueprint("vehicle.tesla.model3", role="ego")
        place = session.map.get_spawn_points()[0]
        ego = session.spawn(blueprint, place)
        session.spawn(session.blueprint("sensor.other.collision"), session.carla.Transform(), ego).listen(print)
        session.tick()
        os._exit(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    session = CarlaSession(running)
    session.connect()
    session.tick()
    kinds = {actor.type_id for actor in session.world.get_actors()}
    session.close()
    assert not any(kind.startswith(("vehicle.", "sensor.")) for kind in kinds)


def test_cars_of_other_clients_are_not_destroyed(running):
    import carla

    client = carla.Client(running.host, running.port, 2)
    client.set_timeout(5.0)
    theirs = client.get_world()
    blueprint = theirs.get_blueprint_library().find("vehicle.audi.tt")
    car = theirs.spawn_actor(blueprint, theirs.get_map().get_spawn_points()[3])
    session = CarlaSession(running)
    session.connect()
    session.tick()
    assert session.world.get_actors([car.id])
    session.close()


def children_of(pid: int) -> list[str]:
    """Command lines of carla-lite processes that a process started."""
    found = subprocess.run(["pgrep", "-a", "-f", "sim.carla_lite"], capture_output=True, text=True, check=False).stdout
    lines = []
    for line in found.splitlines():
        number = line.split()[0]
        try:
            parent = int(open(f"/proc/{number}/stat").read().rsplit(")", 1)[1].split()[1])  # noqa: SIM115
        except OSError:
            continue
        if parent == pid:
            lines.append(number)
    return lines


def start_training(folder) -> tuple[subprocess.Popen, list[str]]:
    command = [sys.executable, "-m", "lgdrl.cli", "train", "--backend", "carla-lite", "--steps", "5000", "--out"]
    options = [
        "num_envs=1",
        "evaluate_every=0",
        "log_every=10",
        "learner_options.learning_starts=20",
        "learner_options.hidden=[16,16]",
    ]
    process = subprocess.Popen(
        [*command, str(folder), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 90
    metrics = folder / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    servers = children_of(process.pid)
    assert len(servers) == 1
    return process, servers


def left_after(numbers: list[str], seconds: float = 10.0) -> list[str]:
    """The processes that are left when all have ended, or after some seconds."""
    deadline = time.monotonic() + seconds
    while (left := [number for number in numbers if os.path.exists(f"/proc/{number}")]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.mark.slow
def test_ctrl_c_in_training_saves_ends_the_server_and_the_run_goes_on_later(tmp_path):
    process, servers = start_training(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert left_after(servers) == []
    before = len((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    resumed = subprocess.Popen(
        [sys.executable, "-m", "lgdrl.cli", "train", "--resume", str(tmp_path / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 90
    while len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) <= before + 1:
        assert resumed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    resumed.send_signal(signal.SIGINT)
    assert resumed.wait(30) == 130


@pytest.mark.slow
@pytest.mark.slow
def test_a_training_that_is_killed_takes_its_server_with_it(tmp_path):
    process, servers = start_training(tmp_path / "run")
    process.kill()
    process.wait()
    assert servers
    assert left_after(servers) == []


@pytest.mark.slow
def test_after_many_episodes_the_map_is_loaded_afresh(monkeypatch):
    monkeypatch.setattr("sim.carla.env.RELOAD_EVERY", 2)
    env = env_on(LiteServer())
    loads = []
    for seed in range(5):
        env.reset(seed=seed)
        loads.append(env._session.world.id)
    env.close()
    assert len(set(loads)) == 3


@pytest.mark.slow
def test_environments_of_one_program_have_a_server_each():
    envs = sim.make_vec("lane-change", 2, seed=0, backend="carla-lite", config={"density": [4, 4]})
    envs.reset()
    addresses = {str(env._session.address) for env in envs._shares[0]._share.envs}
    envs.step(np.array([1, 1]))
    envs.close()
    assert len(addresses) == 2
