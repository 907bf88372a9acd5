"""The load of the machine during a measurement: own work is not counted as that of others."""

import subprocess
import sys
import time

import pytest

from lgdrl.profiler import machine
from lgdrl.profiler.machine import LoadWatch, MachineLoad, own_seconds

needs_proc = pytest.mark.skipif(machine.busy_seconds() is None, reason="there is no /proc")


@needs_proc
def test_work_of_this_process_and_of_a_running_child_is_its_own():
    before = own_seconds()
    child = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: pass"])
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    time.sleep(0.3)
    while_it_runs = own_seconds()
    child.kill()
    child.wait()
    assert while_it_runs - before >= 0.2 + 0.05
    assert own_seconds() >= while_it_runs - 0.05


@needs_proc
def test_the_share_of_others_is_what_all_used_less_what_is_own(monkeypatch):
    busy, own, clock = iter([100.0, 107.0]), iter([10.0, 12.0]), iter([0.0, 10.0])
    monkeypatch.setattr(machine, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "own_seconds", lambda: next(own))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    load = LoadWatch().load()
    assert load.others == pytest.approx(5.0 / 20.0)
    assert not load.busy


def test_a_busy_machine_is_named_and_missing_figures_are_left_out():
    busy = MachineLoad(4, 1, 3.0, 5.5, 0.6)
    assert busy.words() == (
        "4 cores, 1 thread of torch; load average 3.0 at the beginning, 5.5 at the end; other processes used 60 % of "
        "the CPU: latencies are those of a busy machine"
    )
    assert MachineLoad(1, 2, None, None, None).words() == "1 core, 2 threads of torch"


def test_where_the_system_says_nothing_nothing_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (_ for _ in ()).throw(OSError))
    load = LoadWatch().load()
    assert (load.others, load.load_begin, load.load_end) == (None, None, None)
