"""Output paths are checked before the work begins, and files are there whole or not at all."""

from __future__ import annotations

import os

import pytest

from lgdrl.cli import main
from sim.errors import UsageError
from sim.files import check_output_file, check_output_folder, check_outputs, write_atomically


def words_of(error):
    assert "\n" not in str(error.value)
    return str(error.value)


IMPOSSIBLE = {
    "": "name a",
    "  ": "name a",
    "a\0b": "zero byte",
    "a\ud800b": "not valid text",
    "x" * 300: "too long",
    "x" * 253: "too long",
    "ä" * 130: "too long",
    "d/" * 3000 + "x": "too long",
}


@pytest.mark.parametrize("path", IMPOSSIBLE)
@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
def test_a_path_that_no_file_can_have_is_refused(tmp_path, monkeypatch, check, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        check(path, "--json")
    assert IMPOSSIBLE[path] in words_of(error)
    assert len(str(error.value)) < 500
    assert list(tmp_path.iterdir()) == []


def test_a_file_needs_a_folder_that_is_there_and_no_folder_in_its_place(tmp_path):
    (tmp_path / "file").write_text("")
    cases = {
        tmp_path: "is a folder",
        f"{tmp_path}/new/": "is a folder",
        tmp_path / "no" / "a.json": "does not exist: make it first",
        tmp_path / "file" / "a.json": "is a file",
        "/proc/a.json": "cannot write",
    }
    for path, words in cases.items():
        with pytest.raises(UsageError) as error:
            check_output_file(str(path), "--json")
        assert words in words_of(error)
    check_output_file(str(tmp_path / "a.json"), "--json")
    check_output_file(str(tmp_path / "file"), "--json")
    check_output_file("/dev/null", "--json")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_may_be_made_with_those_above_it_but_not_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "file", tmp_path / "file" / "a", tmp_path / "loop" / "a", "/proc/a"):
        with pytest.raises(UsageError) as error:
            check_output_folder(str(path), "--out")
        words_of(error)
    check_output_folder(str(tmp_path / "a" / "b" / "c"), "--out")
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_only_what_was_named_is_checked(tmp_path):
    check_outputs({"json": None, "out": None, "other": "\0"})
    with pytest.raises(UsageError, match="--record"):
        check_outputs({"record": ""})
    with pytest.raises(UsageError, match="--save"):
        check_outputs({"save": str(tmp_path / "a\0")})


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--steps", "1", "--json", "no/a.json"],
        ["train", "--steps", "1", "--out", "file"],
        ["train", "--steps", "1", "--out", ""],
        ["train", "--steps", "1", "--out", "x" * 300],
        ["evaluate", "--expert", "idle", "--json", "no/a.json"],
        ["evaluate", "--expert", "idle", "--video", "no/a.gif"],
        ["compare", "--strategies", "sac", "--out", "file"],
        ["compare", "--strategies", "sac", "--json", "no/a.json"],
        ["profile", "--out", "file"],
        ["profile", "--json", ""],
        ["play", "--record", "no/a.gif"],
        ["play", "--save", "file"],
        ["list", "--json", "no/a.json"],
        ["bench", "sim", "--plot", "no/a.png"],
        ["bench", "sim", "--json", "no/a.json"],
        ["bench", "learner", "--plot", "no/a.png"],
        ["bench", "learner", "--json", "no/a.json"],
        ["llm", "eval", "--json", "no/a.json"],
        ["demos", "info", "file", "--json", "no/a.json"],
        ["demo", "--out", "file"],
    ],
)
def test_every_command_checks_its_outputs_before_it_begins(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert any(option in error for option in words if option.startswith("--"))
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_in_place_of_a_file_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_keeps_pointing_where_it_points_and_a_pipe_stays_a_pipe(tmp_path):
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", lambda file: file.write(b"x"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", lambda file: file.write(b"y"))
    assert os.read(reader, 10) == b"y"
    os.close(reader)
    assert not (tmp_path / "pipe").is_file()
