"""Every command computes with one thread unless LGDRL_THREADS says otherwise."""

import os
import subprocess
import sys

import pytest
import torch

from lgdrl.cli import main
from lgdrl.threads import LIBRARIES, VARIABLE, limit_threads


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    before = torch.get_num_threads()
    for name in (VARIABLE, *LIBRARIES):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


def test_one_thread_is_the_default_for_torch_and_blas():
    torch.set_num_threads(2)
    assert limit_threads() == 1
    assert torch.get_num_threads() == 1
    assert {os.environ[name] for name in LIBRARIES} == {"1"}


def test_more_threads_are_asked_for_by_the_variable(monkeypatch):
    monkeypatch.setenv(VARIABLE, "2")
    assert limit_threads() == 2
    assert torch.get_num_threads() == 2


def test_what_is_set_for_a_library_stays(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    limit_threads()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "99999999999", "²", "1e3"])
@pytest.mark.parametrize("words", [["list"], ["carla-lite", "--help"], ["profile", "--quick"]])
def test_other_values_end_every_command_with_two_and_one_line(text, words, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, text)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert VARIABLE in said


def test_a_command_of_its_own_and_its_children_have_one_thread():
    code = (
        "import os; from lgdrl.cli import main; main(['list', 'gates']); import torch, numpy; "
        "print(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])"
    )
    clean = {name: value for name, value in os.environ.items() if name not in (VARIABLE, *LIBRARIES)}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=300)
    assert done.stdout.split()[-2:] == ["1", "1"], done.stderr


@pytest.mark.parametrize("command", ["play", "profile", "evaluate", "demo"])
def test_nothing_numerical_is_imported_before_threads_are_set(command):
    code = (
        "import sys, lgdrl.threads\n"
        "def seen():\n"
        "    print(sorted({'numpy', 'torch', 'scipy'} & set(sys.modules)))\n"
        "    raise ValueError('stop')\n"
        "lgdrl.threads.limit_threads = seen\n"
        f"from lgdrl.cli import main; main([{command!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr
