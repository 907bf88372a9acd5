"""Mutated configs and run folders through the commands: documented exit codes, one line, no traceback, no hang.

`pytest -m slow -s tests/e2e/test_fuzz_files.py` prints the counts.
"""

from __future__ import annotations

import copy
import random
import shutil
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from lgdrl.cli import main
from sim.config import dump_yaml, load_yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "lgdrl"))
from run_folders import QUICK, trained

pytestmark = pytest.mark.slow

CONFIGS, FOLDERS, LIMIT_S = 500, 200, 60
ODD = [-1, 0, 1, 2, 3, 0.5, 1e-3, -1e-9, float("nan"), float("inf"), 1e300, 10**12, 10**38, 2**63, True, False, None]
ODD += [
    "",
    "x",
    "1e-3",
    "..",
    "/dev/null",
    "a\0b",
    "\x85",
    "ä" * 300,
    "2020-01-01",
    "no",
    [],
    {},
    ["a"],
    [[1]],
    {"a": 1},
]
ODD += [
    [8],
    [0],
    [10**9],
    {"kind": "always"},
    "sac",
    "lgdrl",
    "rule",
    "idle",
    "policy:",
    "gym:",
    "gym:Pendulum-v1",
    "engine",
]
UNBOUNDED = {"updates_per_decision", "expert", "strategy"}
"""Large values of the first are many updates; the others may name what takes minutes to load."""
MARKS = [
    "&a ",
    "*a",
    "!!python/name:os.system ",
    "<<: ",
    "- ",
    "? ",
    "{",
    "[",
    "]",
    "}",
    ": ",
    "#",
    "'",
    '"',
    "|\n",
    "\t",
    "\0",
]


class Hang(BaseException):
    """A command took longer than `LIMIT_S`."""


@contextmanager
def limited(seconds):
    def ring(signum, frame):
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(words, capsys):
    """Exit code of a command, or what is wrong with how it ended."""
    try:
        with limited(LIMIT_S):
            code = main(words)
    except Hang:
        return "hang"
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {error}"[:200]
    error = capsys.readouterr().err
    lines = error.count("\n")
    if code not in (0, 1, 2) or (code and lines != 1) or "Traceback" in error:
        return f"exit code {code} with {lines} lines: {error[:200]}"
    return code


def places(values, path=()):
    """Paths of all values of a nested mapping."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def with_odd_values(values, draw):
    found = copy.deepcopy(values)
    for _ in range(draw.choice([1, 1, 2, 4])):
        *above, key = draw.choice([place for place in places(found) if place[-1] not in UNBOUNDED])
        inner = found
        for part in above:
            inner = inner[part]
        how = draw.random()
        if how < 0.1:
            del inner[key]
        elif how < 0.2:
            inner[draw.choice(["x", "steps", "seed", "", "options"])] = draw.choice(ODD)
        elif how < 0.5 and type(inner[key]) in (int, float):
            inner[key] = type(inner[key])(inner[key] * draw.choice([0.5, 2, 3]) + draw.choice([0, 1]))
        else:
            inner[key] = draw.choice(ODD)
    return found


def with_odd_text(text, draw):
    for _ in range(draw.choice([1, 2, 5])):
        at = draw.randrange(len(text) + 1)
        lines = text.splitlines(keepends=True)
        how = draw.randrange(6)
        if how == 0:
            text = text[:at] + draw.choice(MARKS) + text[at:]
        elif how == 1:
            text = text[:at] + text[at + draw.randrange(1, 9) :]
        elif how == 2:
            text = text[:at]
        elif how == 3:
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines or ["\n"]))
            text = "".join(lines)
        elif how == 4:
            text = text[:at] + chr(draw.randrange(1, 0x3000)) + text[at:]
        else:
            draw.shuffle(lines)
            text = "".join(lines)
    return text


def test_500_mutated_configs_train_or_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw, found = random.Random(1), Counter()
    whole = load_yaml(trained(tmp_path / "model", steps=40) / "config.yaml")
    wrong = []
    for number in range(CONFIGS):
        path, out = tmp_path / "config.yaml", tmp_path / "out"
        text = dump_yaml(with_odd_values(draw.choice([QUICK, whole]), draw))
        path.write_text(text if number % 2 else with_odd_text(text, draw), encoding="utf-8", errors="surrogatepass")
        limits = ["--steps", "40", "--scenario", "gym:CartPole-v1", "--strategy", "sac-bc", "--expert", "random"]
        limits += ["learner_options.updates_per_decision=0.25"]
        code = outcome(["train", "--config", str(path), "--out", str(out), *limits], capsys)
        found[code if isinstance(code, int) else "wrong"] += 1
        if not isinstance(code, int) or code == 1 or (code and out.exists()):
            wrong.append((number, code, out.exists(), path.read_text(encoding="utf-8", errors="replace")))
        shutil.rmtree(out, ignore_errors=True)
    with capsys.disabled():
        print(f"\n{CONFIGS} mutated configs: {dict(found)}")
    assert wrong == []
    assert found[0] > CONFIGS // 20
    assert found[2] > CONFIGS // 4


def mutated(path, draw, others):
    """Change a file of a run folder. Returns: how."""
    how = draw.choice(["flip", "flip", "cut", "insert", "zero", "swap", "delete", "folder", "empty", "noise", "double"])
    content = path.read_bytes()
    at = draw.randrange(len(content) + 1)
    if how in ("delete", "folder"):
        path.unlink()
        if how == "folder":
            path.mkdir()
        return how
    changed = {
        "flip": content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
        if at < len(content)
        else b"",
        "cut": content[:at],
        "insert": content[:at] + draw.randbytes(draw.randrange(1, 50)) + content[at:],
        "zero": content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :],
        "swap": draw.choice(others).read_bytes(),
        "empty": b"",
        "noise": draw.randbytes(500),
        "double": content + content,
    }
    path.write_bytes(changed[how])
    return how


def test_200_mutated_run_folders_are_read_or_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = trained(tmp_path / "whole")
    names = [
        "config.yaml",
        "policy.safetensors",
        "checkpoint.pt",
        "guidance.sqlite",
        "metrics.csv",
        "policy.zip",
        ".lock",
    ]
    draw, found = random.Random(2), Counter()
    wrong = []
    for number in range(FOLDERS):
        folder = tmp_path / "run"
        shutil.copytree(whole, folder)
        changes = []
        for name in draw.sample(names, draw.choice([1, 1, 1, 2, 3])):
            changes.append((name, mutated(folder / name, draw, [whole / other for other in names])))
        scenario = ["--scenario", "gym:CartPole-v1", "--episodes", "1"]
        for words in (
            ["evaluate", str(folder), "--episodes", "1"],
            ["evaluate", "--expert", f"policy:{folder}", *scenario],
            ["evaluate", "--expert", f"policy:{folder}/policy.zip", *scenario],
            ["train", "--resume", str(folder)],
            ["train", "--resume", str(folder), "--steps", "120"],
        ):
            code = outcome(words, capsys)
            found[code if isinstance(code, int) else "wrong"] += 1
            if not isinstance(code, int):
                wrong.append((number, words[:2], changes, code))
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{FOLDERS} mutated run folders, {sum(found.values())} commands: {dict(found)}")
    assert wrong == []
    assert found[0] > FOLDERS
    assert found[2] > FOLDERS // 2
