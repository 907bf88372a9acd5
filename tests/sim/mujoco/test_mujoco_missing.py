"""Without the extra `mujoco` everything else works, and a `mujoco:` scenario is one line."""

from __future__ import annotations

import os
import subprocess
import sys

HIDDEN = "import sys; sys.modules['mujoco'] = None\n"
LIST = "from lgdrl.cli import main; sys.exit(main(['list', 'scenarios']))"
EVALUATE = (
    "from lgdrl.cli import main; sys.exit(main(['evaluate', '--scenario', 'mujoco:Ant-v5', '--expert', 'random']))"
)
OTHERS = """
import sim
for name in ("gym:CartPole-v1", "lane-keeping-v0"):
    sim.make(name).reset(seed=0)
for make in (lambda: sim.make("mujoco:Ant-v5"), lambda: sim.make_vec("mujoco:Ant-v5", 2, workers=1)):
    try:
        make()
    except sim.errors.UsageError as error:
        print(error)
"""
INSTALL = "scenario 'mujoco:Ant-v5' needs MuJoCo: pip install 'lgdrl[mujoco]'"


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def test_scenarios_are_listed():
    done = run(HIDDEN + LIST)
    assert done.returncode == 0
    assert "mujoco:Hopper-v5" in done.stdout


def test_listing_does_not_import_it():
    done = run("import sys, sim; sim.registry(); sys.exit('mujoco' in sys.modules)")
    assert done.returncode == 0


def test_the_command_line_says_what_to_install():
    done = run(HIDDEN + EVALUATE)
    assert done.returncode == 2
    assert done.stderr.strip() == f"lgdrl: {INSTALL}"


def test_other_scenarios_work():
    done = run(HIDDEN + OTHERS)
    assert done.stdout.splitlines() == [INSTALL, INSTALL]


def test_a_library_of_the_users_that_breaks_mujocos_import_is_one_line():
    done = run("import sys; " + EVALUATE, MUJOCO_GL="no-such-library")
    assert done.returncode == 2
    assert "unset MUJOCO_GL = 'no-such-library'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
