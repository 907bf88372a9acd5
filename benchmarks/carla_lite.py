"""Ticks per second of carla-lite under the real CARLA client, and its memory over many loads of a world.

    python benchmarks/carla_lite.py [--ticks 1000] [--loads 100] [--json FILE]

After every tick the client reads the poses of all vehicles. `idle` does nothing else, `single` sends each vehicle its
control in a call of its own, `batch` sends them in one, `manager` leaves them to the Traffic Manager. Beside the wall
clock's rate stands the CPU time that the server took per tick, which depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import carla

from sim.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
MAP = "highway"
VEHICLES = (1, 20, 50)
STEP = 0.05
SPACING = 3
"""Spawn points from one vehicle to the next."""
WARM_UP = 50
MODES = ("idle", "single", "batch", "manager")


@dataclass
class TickRate:
    mode: str
    vehicles: int
    ticks_per_second: float
    server_ms_per_tick: float
    """CPU time."""
    client_ms_per_tick: float


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """Port and process id of a carla-lite of our own."""
    command = [sys.executable, "-m", "sim.carla_lite", "--map", MAP, "--port", "0", "--until-stdin-closes"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    if "listening on" not in line:
        raise SystemExit("carla-lite did not start")
    try:
        yield int(line.split("listening on ")[1].split()[0].rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.communicate()


def fresh(client: carla.Client) -> carla.World:
    """A world that waits for ticks."""
    world = client.load_world(MAP)
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, STEP
    world.apply_settings(settings)
    return world


def cars(client: carla.Client, world: carla.World, count: int) -> list[carla.Actor]:
    blueprint = world.get_blueprint_library().find("vehicle.tesla.model3")
    points = world.get_map().get_spawn_points()[::SPACING][:count]
    answers = client.apply_batch_sync([carla.command.SpawnActor(blueprint, point) for point in points])
    world.tick()
    return list(world.get_actors([answer.actor_id for answer in answers]))


def measure(client: carla.Client, process: int, mode: str, vehicles: int, ticks: int) -> TickRate:
    world = fresh(client)
    found = cars(client, world, vehicles)
    control = carla.VehicleControl(throttle=0.4)
    manager = None
    if mode == "manager":
        manager = client.get_trafficmanager(free_port())
        manager.set_synchronous_mode(True)
        manager.set_random_device_seed(1)
        for actor in found:
            actor.set_autopilot(True, manager.get_port())

    def act() -> None:
        if mode == "single":
            for actor in found:
                actor.apply_control(control)
        elif mode == "batch":
            client.apply_batch([carla.command.ApplyVehicleControl(actor.id, control) for actor in found])

    def step() -> None:
        act()
        world.tick()
        snapshot = world.get_snapshot()
        for actor in found:
            snapshot.find(actor.id).get_transform()

    rate, server_ms, client_ms = timed(step, process, ticks)
    if manager is not None:
        manager.set_synchronous_mode(False)
        manager.shut_down()
    return TickRate(mode, vehicles, rate, server_ms, client_ms)


def timed(step: Callable[[], None], process: int, ticks: int) -> tuple[float, float, float]:
    """Steps per second, and CPU milliseconds per step of the server and of this process."""
    for _ in range(WARM_UP):
        step()
    server_before, own_before, start = cpu_seconds(process), time.process_time(), time.perf_counter()
    for _ in range(ticks):
        step()
    wall = time.perf_counter() - start
    server_after, own_after = cpu_seconds(process), time.process_time()
    return ticks / wall, 1e3 * (server_after - server_before) / ticks, 1e3 * (own_after - own_before) / ticks


def memory(client: carla.Client, process: int, loads: int) -> dict[str, float]:
    """MiB of the server around loads of two maps in turn, each with traffic and some ticks."""
    sizes = []
    for k in range(loads):
        world = client.load_world((MAP, "straight")[k % 2])
        settings = world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, STEP
        world.apply_settings(settings)
        for actor in cars(client, world, 20):
            actor.apply_control(carla.VehicleControl(throttle=1.0))
        for _ in range(20):
            world.tick()
        sizes.append(resident(process))
    return {"loads": loads, "after_10": sizes[min(9, loads - 1)], "after_all": sizes[-1], "highest": max(sizes)}


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=1000, help="per row, at least 1 (default: 1000)")
    parser.add_argument("--loads", type=int, default=100, help="of a world, for memory; 0 leaves it out (default: 100)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    if options.ticks < 1 or options.loads < 0:
        parser.error("--ticks: at least 1; --loads: at least 0")
    with server() as (port, process):
        client = carla.Client("127.0.0.1", port, 4)
        client.set_timeout(60.0)
        print(f"{'':8} {'vehicles':>8} {'ticks/s':>8} {'x real time':>11} {'server CPU':>12} {'client CPU':>12}")
        rows = []
        for mode in MODES:
            for vehicles in VEHICLES:
                row = measure(client, process, mode, vehicles, options.ticks)
                rows.append(row)
                print(
                    f"{mode:8} {vehicles:8} {row.ticks_per_second:8.0f} {STEP * row.ticks_per_second:11.0f} "
                    f"{row.server_ms_per_tick:9.3f} ms {row.client_ms_per_tick:9.3f} ms",
                    flush=True,
                )
        found: dict = {"rows": [asdict(row) for row in rows], "load_average": os.getloadavg()}
        if options.loads:
            found["memory"] = sizes = memory(client, process, options.loads)
            print(
                f"server memory: {sizes['after_10']:.1f} MiB after 10 loads, {sizes['after_all']:.1f} after "
                f"{options.loads}, {sizes['highest']:.1f} at most"
            )
    print(f"load average of this machine: {found['load_average'][0]:.1f} on {os.cpu_count()} CPUs")
    if options.json is not None:
        text = json.dumps(found, indent=2) + "\n"
        write_atomically(options.json, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
