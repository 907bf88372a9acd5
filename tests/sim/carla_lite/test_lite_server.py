"""The server survives bad starts, bad clients and faults. Requests are packed by hand; no CARLA client is needed."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lite_servers import PATIENCE, ROOT, Caller, RawStreamReader, ServerProcess, read_token

from sim.carla_lite import codec, maps, watchdog
from sim.carla_lite.faults import FaultInjector, Faults
from sim.carla_lite.handlers.batch import COMMANDS, SPAWN
from sim.carla_lite.handlers.dispatcher import HANDLERS, Dispatcher
from sim.carla_lite.rpc import CallConnection, Streams
from sim.carla_lite.server import main
from sim.carla_lite.world import LiteWorld
from sim.errors import UsageError

MODEL3 = "vehicle.tesla.model3"


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--map", "straight") as server:
        yield server
        assert server.running()


def description(caller: Caller, name: str = MODEL3) -> list:
    definitions = {row[1]: row for row in caller.call("get_actor_definitions")[0][1]}
    return [definitions[name][0], name, []]


# --------------------------------------------------------------------------------------------------------------- starts


@pytest.fixture
def taken():
    """A port that is taken, behind one that is free and that the system gives to no socket by itself."""
    with socket.socket() as listener:
        ports = iter(range(10_000 + os.getpid() % 10_000, 32_000, 2))
        while True:
            port = next(ports)
            with socket.socket() as free:
                try:
                    free.bind(("127.0.0.1", port))
                    listener.bind(("127.0.0.1", port + 1))
                except OSError:
                    continue
            listener.listen()
            yield port + 1
            return


def test_bad_starts_end_in_one_line_and_exit_code_2(tmp_path, taken, capfd):
    broken = tmp_path / "broken.xodr"
    broken.write_text("<OpenDRIVE><road")
    binary = tmp_path / "binary.xodr"
    binary.write_bytes(b"\xff\xfe\x00")
    for options, words in (
        (["--map", "moon"], ["moon", "highway"]),
        (["--map", str(tmp_path / "none.xodr")], ["none.xodr", "No such file"]),
        (["--map", str(broken)], ["OpenDRIVE"]),
        (["--map", str(binary)], ["UTF-8"]),
        (["--port", str(taken)], [str(taken), "in use"]),
        (["--port", str(taken - 1)], [str(taken), "streams"]),
        (["--port", "70000"], ["70000"]),
        (["--host", "no.such.host.invalid"], ["no.such.host"]),
        (["--seed", "-1"], ["-1"]),
        (["--jitter", "-3"], ["-3"]),
        (["--fault", "sleep@3"], ["sleep", "stall-stream"]),
        (["--fault", "die=3"], ["die@"]),
        (["--fault", "slow-load=soon"], ["slow-load="]),
    ):
        assert main(["--port", "0", *options]) == 2
        out, errors = capfd.readouterr()
        assert out == ""
        assert errors.count("\n") == 1
        assert errors.startswith("carla-lite: ")
        assert all(word in errors for word in words), errors


def test_it_says_where_it_listens_and_ends_quietly():
    with ServerProcess("--map", "curve") as server:
        assert server.greeting.startswith(f"carla-lite 0.9.16 listening on 127.0.0.1:{server.port} (map curve; ")
        assert server.greeting.count("\n") == 1
        with Caller(server.port) as caller, RawStreamReader(server.port, codec.WORLD_STREAM) as reader:
            assert caller.call("version") == [[1, "0.9.16"]]
            reader.frame()
            assert server.interrupt() == 130
        assert server.errors() == ""
    with ServerProcess("--map", "curve") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        assert server.errors() == ""


def test_it_ends_with_the_process_that_started_it():
    with ServerProcess() as server:
        server.process.stdin.close()
        assert server.process.wait(PATIENCE) == 0
        server.process.stdin = None
        assert server.errors() == ""


def test_an_xodr_file_can_be_the_map(tmp_path):
    path = tmp_path / "mine.xodr"
    path.write_text(maps.read("straight"))
    with ServerProcess("--map", str(path)) as server, Caller(server.port) as caller:
        assert caller.call("get_map_info")[0][1][0] == "CarlaLite/Maps/mine"
        assert caller.call("get_map_data")[0][1] == maps.read("straight")
        assert caller.call("get_available_maps")[0][1][0] == "CarlaLite/Maps/mine"


def test_a_file_with_the_name_of_a_shipped_map_takes_its_place(tmp_path):
    path = tmp_path / "straight.xodr"
    path.write_text(maps.read("curve"))
    with ServerProcess("--map", str(path)) as server, Caller(server.port) as caller:
        for name in ("curve", "straight"):
            caller.call("load_new_episode", name, True, 0)
        names = caller.call("get_available_maps")[0][1]
        assert names.count("CarlaLite/Maps/straight") == 1
        assert caller.call("get_map_data")[0][1] == maps.read("curve")


def test_starting_takes_neither_torch_nor_pygame():
    """Every environment of a test suite waits for the start of a server."""
    words = (
        "import sys, sim.carla_lite.server; print(*{'torch', 'pygame', 'gymnasium', 'scipy', 'carla'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, timeout=PATIENCE)
    assert done.stdout.decode().split() == []


# ---------------------------------------------------------------------------------------------------------- bad clients


@pytest.mark.parametrize("port_offset", [0, 1])
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 64,
        b"\xc1" * 100,
        b"\xff\xff\xff\xff" + b"\x00" * 1000,
        msgpack.packb([0, 1, "version"]),
        msgpack.packb([0, 1, 7, [[False]]]),
        msgpack.packb([0, 1, "version", None]),
        msgpack.packb({"a": 1}),
        msgpack.packb({1: [2]}) + b"\x81\x91\x01\x01",
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_garbage_ends_its_connection_and_nothing_else(server, garbage, port_offset):
    with Caller(server.port) as good:
        with socket.create_connection(("127.0.0.1", server.port + port_offset), timeout=PATIENCE) as bad:
            bad.sendall(garbage)
            assert good.call("version") == [[1, "0.9.16"]]
        assert good.call("tick_cue")[0][0] == 1


def test_half_a_request_waits_for_its_other_half(server):
    request = msgpack.packb([0, 1, "version", [[False]]])
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        for byte in request:
            client.sendall(bytes([byte]))
            time.sleep(0.002)
        assert msgpack.unpackb(client.recv(100)) == [1, 1, None, [[1, "0.9.16"]]]
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(request[:5])  # and is gone
    with Caller(server.port) as caller:
        assert caller.call("version") == [[1, "0.9.16"]]


def test_an_unknown_call_gets_an_error_with_its_name(server):
    with Caller(server.port) as caller:
        (response,) = caller.call("fly_to_the_moon", 1, 2)
        assert response[0] == 0
        assert "fly_to_the_moon" in response[1][0]


def test_wrong_arguments_get_an_error_in_the_shape_of_the_call(server):
    with Caller(server.port) as caller:
        assert caller.call("get_physics_control", "seven")[0][0] == 0
        assert caller.call("set_actor_transform", 10**9, [[0, 0, 0], [0, 0, 0]])[0][0] is True
        assert caller.call("set_actor_transform", 1, "there")[0][0] is True
        assert caller.call("set_actor_location", 1, [0.0, float("nan"), 0.0])[0][0] is True
        assert caller.call("spawn_actor", [0, "vehicle.none", []], [[0, 0, 0], [0, 0, 0]])[0][0] == 0
        responses = caller.call("apply_batch", [[[99, []]], [[2, [5]]], [2, [5]], "x"], False)
        assert [response[0][0] for response in responses] == [0] * 4


def test_a_client_that_leaves_in_the_middle_of_a_frame_is_forgotten(server):
    with Caller(server.port) as caller:
        for _ in range(5):
            reader = RawStreamReader(server.port, codec.WORLD_STREAM)
            reader.socket.recv(10)
            reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reader.socket.close()  # with a reset
            caller.call("tick_cue")
        with RawStreamReader(server.port, codec.WORLD_STREAM) as reader:
            reader.frame()
            frame = caller.call("tick_cue")[0][1]
            seen = 0
            while seen < frame:
                seen = struct.unpack_from("<QQ", reader.frame())[1]
            assert seen == frame


def test_a_reader_that_stops_reading_is_dropped_with_one_line():
    with ServerProcess("--map", "straight") as server, Caller(server.port) as caller:
        caller.call("set_episode_settings", codec.Settings(True, fixed_delta_seconds=0.05).pack())
        camera = description(caller, "sensor.camera.rgb")
        actor = caller.call("spawn_actor", camera, [[0, 0, 5], [0, 0, 0]])[0][1]
        stream, _ = read_token(actor[5])
        with RawStreamReader(server.port, stream), RawStreamReader(server.port, codec.WORLD_STREAM) as good:
            for _ in range(40):  # 77 MB
                caller.call("tick_cue")
                good.frame()
            assert server.errors().count("does not read") == 1
            caller.call("tick_cue")
        assert server.running()


def test_a_stream_is_the_present_frame_and_then_one_frame_per_tick():
    with ServerProcess("--map", "straight") as server, Caller(server.port) as caller:
        caller.call("set_episode_settings", codec.Settings(True, fixed_delta_seconds=0.1).pack())
        with RawStreamReader(server.port, codec.WORLD_STREAM) as reader:
            number, first, started = struct.unpack_from("<QQd", reader.frame())
            assert number == 17
            for k in range(1, 6):
                frame = caller.call("tick_cue")[0][1]
                _, told, moment = struct.unpack_from("<QQd", reader.frame())
                assert (told, frame) == (first + k, first + k)
                assert moment == pytest.approx(started + 0.1 * k)


def test_frames_between_asking_for_a_stream_and_reading_it_are_not_lost():
    with ServerProcess("--map", "straight") as server, Caller(server.port) as caller:
        caller.call("set_episode_settings", codec.Settings(True, fixed_delta_seconds=0.05).pack())
        actor = caller.call("spawn_actor", description(caller, "sensor.other.imu"), [[0, 0, 5], [0, 0, 0]])[0][1]
        stream, _ = read_token(actor[5])
        caller.call("tick_cue")  # not read
        caller.call("get_sensor_token", stream)
        frames = [caller.call("tick_cue")[0][1] for _ in range(3)]
        with RawStreamReader(server.port, stream) as reader:
            assert [struct.unpack_from("<QQ", reader.frame())[1] for _ in range(3)] == frames
            frame = caller.call("tick_cue")[0][1]
            assert struct.unpack_from("<QQ", reader.frame())[1] == frame


# ------------------------------------------------------------------------------------------------ anything at all, fast


def dispatcher(map_name: str = "intersection") -> Dispatcher:
    world = LiteWorld(codec.VERSIONS["0.9.16"], map_name, maps.read(map_name))
    found = Dispatcher(world, Streams(lambda stream: None), FaultInjector(Faults()))
    rows = {blueprint.id: blueprint for blueprint in world.blueprints.values()}
    for k, name in enumerate((MODEL3, "walker.pedestrian.0001", "static.prop.box01", "sensor.other.imu")):
        world.spawn([rows[name].uid, name, []], (10.0 * k, 30.0, 0.5, 0.0, 0.0, 0.0))
    return found


numbers = st.integers(0, 20) | st.integers() | st.floats() | st.floats(-100, 100)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)
triples = st.lists(st.floats(-50, 50), min_size=3, max_size=3)
likely = st.integers(1, 12) | triples | st.tuples(triples, triples).map(list) | anything


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(sorted(HANDLERS)), st.lists(likely, max_size=4)), min_size=1, max_size=6))
def test_no_call_with_any_arguments_ends_the_world(calls, requests):
    """Every response has the shape of its call and can be sent; afterwards time goes on and all numbers are finite."""
    for name, arguments in requests:
        if name in ("load_new_episode", "version"):  # slow
            continue
        response = msgpack.unpackb(msgpack.packb(calls.dispatch(name, arguments)), strict_map_key=False)
        if name != "apply_batch":
            assert response[0][0] in (0, 1)  # also False and True
    calls.server.world.settings = codec.Settings(True, fixed_delta_seconds=0.05)
    calls.server.advance()
    records = calls.server.world.table.records()
    assert all(math.isfinite(value) for value in records["pose"].ravel().tolist())
    assert all(math.isfinite(value) for value in records["velocity"].ravel().tolist())


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([SPAWN, *COMMANDS, 99]), st.lists(likely, max_size=6)), max_size=5))
def test_every_command_of_a_batch_has_a_response_of_its_own(calls, commands):
    responses = calls.dispatch("apply_batch", [[[list(command)] for command in commands], False])
    assert len(responses) == len(commands)
    assert all(response[0][0] in (0, 1) for response in responses)
    calls.server.advance()


@pytest.fixture(scope="module")
def calls() -> Dispatcher:
    return dispatcher()


class Sink:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def get_extra_info(self, name: str) -> Sink:
        return self

    def setsockopt(self, *option: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_any_bytes_are_a_request_or_the_end_of_a_connection(data, more):
    channel, sink = CallConnection(lambda name, arguments: codec.DONE), Sink()
    channel.connection_made(sink)
    for part in (data, more):
        if not sink.closed:
            channel.data_received(part)
    for response in msgpack.Unpacker().feed(sink.written) or ():
        assert response[0] == 1


# --------------------------------------------------------------------------------------------------------------- memory


def test_reloading_and_ticking_keeps_memory_flat():
    with ServerProcess("--map", "straight") as server, Caller(server.port) as caller:
        hero = description(caller)
        imu = description(caller, "sensor.other.imu")
        sizes = []
        for k in range(60):
            caller.call("load_new_episode", ("straight", "curve")[k % 2], False, 0)
            actor = caller.call("spawn_actor", hero, [[50, 100, 0], [0, 0, 0]])[0][1][0]
            caller.call("spawn_actor_with_parent", imu, [[0, 0, 0], [0, 0, 0]], actor, 0, "")
            for _ in range(20):
                caller.call("apply_batch", [[[2, [actor, [1.0, 0.1, 0.0, False, False, False, 1]]]]], False)
                caller.call("tick_cue")
            sizes.append(resident(server.process.pid))
        assert max(sizes[40:]) - max(sizes[10:20]) < 3.0, sizes


def resident(process: int) -> float:
    """MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


# ------------------------------------------------------------------------------------------------- options and faults


def speed_after(ticks: int, *options: str) -> list[float]:
    """m/s of a car under full throttle, tick by tick."""
    with ServerProcess("--map", "straight", *options) as server, Caller(server.port) as caller:
        caller.call("set_episode_settings", codec.Settings(True, fixed_delta_seconds=0.05).pack())
        with RawStreamReader(server.port, codec.WORLD_STREAM) as reader:
            reader.frame()
            actor = caller.call("spawn_actor", description(caller), [[50, 100, 0], [0, 0, 0]])[0][1][0]
            caller.call("apply_control_to_vehicle", actor, [1.0, 0.0, 0.0, False, False, False, 1])
            speeds = []
            for _ in range(ticks):
                caller.call("tick_cue")
                offset = codec.HEADER.size + codec.WORLD.size  # bodies come first
                speeds.append(struct.unpack_from("<IB6f3f", reader.frame(), offset)[8])
        return speeds


def test_with_delay_control_takes_effect_one_frame_later():
    at_once, late = speed_after(5), speed_after(5, "--delay")
    assert late[0] == 0.0 < at_once[0]
    assert late[1:] == at_once[:-1]


def test_with_jitter_frames_come_late_but_in_order():
    with ServerProcess("--map", "straight", "--jitter", "0.3", "--seed", "4") as server, Caller(server.port) as caller:
        caller.call("set_episode_settings", codec.Settings(True, fixed_delta_seconds=0.05).pack())
        imu = description(caller, "sensor.other.imu")
        streams = []
        for k in range(2):
            actor = caller.call("spawn_actor", imu, [[0, 0, 5.0 + k], [0, 0, 0]])[0][1]
            streams.append(read_token(actor[5])[0])
        with RawStreamReader(server.port, streams[0]) as one, RawStreamReader(server.port, streams[1]) as two:
            time.sleep(0.2)
            started = time.monotonic()
            frames = [caller.call("tick_cue")[0][1] for _ in range(8)]
            for reader in (one, two):
                assert [struct.unpack_from("<QQ", reader.frame())[1] for _ in frames] == frames
            assert time.monotonic() - started > 0.1


def test_faults_happen_when_they_were_asked_for():
    still = codec.Settings(True, fixed_delta_seconds=0.05).pack()
    with ServerProcess("--fault", "die@3") as server, Caller(server.port) as caller:
        caller.call("set_episode_settings", still)
        for _ in range(2):
            caller.call("tick_cue")
        with pytest.raises(ConnectionError):
            caller.call("tick_cue")
        assert server.process.wait(PATIENCE) == 70
    with ServerProcess("--fault", "stall-stream@3") as server, Caller(server.port) as caller:
        caller.call("set_episode_settings", still)
        with RawStreamReader(server.port, codec.WORLD_STREAM) as reader:
            reader.frame()
            for _ in range(2):
                caller.call("tick_cue")
                reader.frame()
            caller.call("tick_cue")
            reader.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                reader.frame()
            assert caller.call("version") == [[1, "0.9.16"]]
    with (
        ServerProcess("--fault", "slow-load=0.5", "--fault", "version=0.9.15") as server,
        Caller(server.port) as caller,
    ):
        started = time.monotonic()
        caller.call("load_new_episode", "straight", True, 0)
        assert time.monotonic() - started > 0.5
        assert caller.call("version") == [[1, "0.9.15"]]
    with ServerProcess("--map", "straight", "--fault", "refuse-spawn=2") as server, Caller(server.port) as caller:
        pose = [[50, 100, 0], [0, 0, 0]]
        responses = [caller.call("spawn_actor", description(caller), pose)[0][0] for _ in range(3)]
        assert responses == [0, 0, 1]


@pytest.mark.parametrize("word", ["die", "die@0", "die@x", "slow-load=-1", "refuse-spawn=0", "stall-stream=3", ""])
def test_faults_that_cannot_be_read_are_refused(word):
    with pytest.raises(UsageError):
        Faults.read([word])


# ------------------------------------------------------------------------------------------------- Traffic Managers


def test_a_traffic_manager_that_misses_a_tick_is_notified_again(monkeypatch):
    """The requests to a Traffic Manager: asynchronous mode, which notifies it, then synchronous mode."""
    monkeypatch.setattr(watchdog, "SILENCE", 0.05)
    monkeypatch.setattr(watchdog, "WATCH_EVERY", 0.01)
    heard: list = []

    async def response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unpacker = msgpack.Unpacker()
        while data := await reader.read(1000):
            unpacker.feed(data)
            for _, number, name, arguments in unpacker:
                heard.append((name, arguments))
                writer.write(msgpack.packb([1, number, None, None]))

    async def life() -> None:
        manager = await asyncio.start_server(response, "127.0.0.1", 0)
        watcher = watchdog.TrafficManagerWatchdog()
        task = asyncio.create_task(watcher.watch([manager.sockets[0].getsockname()]))
        for _ in range(2):
            watcher.called("tick_cue")
        await asyncio.sleep(0.2)
        assert heard == []  # no Traffic Manager has made its calls yet
        for _ in range(watchdog.HABIT):
            for name in ("get_vehicle_light_states", "apply_batch", "tick_cue"):
                watcher.called(name)
        while not heard:
            await asyncio.sleep(0.01)
        watcher.called("get_vehicle_light_states")
        await asyncio.sleep(0.3)
        assert heard[:2] == [("set_synchronous_mode", [False]), ("set_synchronous_mode", [True])]
        count = len(heard)
        await asyncio.sleep(0.3)
        assert len(heard) == count  # it has made its calls
        task.cancel()
        manager.close()

    asyncio.run(life())
