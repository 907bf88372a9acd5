"""What is shipped is found: data files through `sim.assets`, in a checkout and in an installed wheel alike.

`make wheel-check` proves the same with a real wheel in a fresh environment.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import lgdrl
from lgdrl import runs
from sim import assets
from sim.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sim", "experts", "lgdrl", "baselines")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DATA = sorted(path.relative_to(ROOT / "assets").as_posix() for path in (ROOT / "assets").rglob("*") if path.is_file())
READ_THEIR_SOURCE = {
    "sim/compiled.py": "hashes the kernels' source, to name their cache",
    "lgdrl/runs.py": "asks git for the commit of the code",
}
"""The only modules that may use `__file__`, and why."""


def test_a_checkout_has_data_files() -> None:
    assert assets.folder() == ROOT / "assets"
    assert DATA


@pytest.mark.parametrize("name", DATA)
def test_every_data_file_is_found(name: str) -> None:
    assert assets.path(name).read_bytes() == (ROOT / "assets" / name).read_bytes()


def test_an_installed_package_uses_its_own_data_and_never_another_distributions_assets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, text in ((tmp_path / "assets", "foreign"), (tmp_path / "sim" / "_assets", "own")):
        folder.mkdir(parents=True)
        (folder / "data.txt").write_text(text)
    monkeypatch.setattr(assets.importlib.resources, "files", lambda name: tmp_path / name)
    assert assets.read_text("data.txt") == "own"


@pytest.mark.parametrize("read", [assets.path, assets.read_text])
def test_a_missing_data_file_is_one_line(read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "folder", lambda: tmp_path)
    with pytest.raises(UsageError, match=r"^data file assets/maps/mars\.xodr is missing .*: install lgdrl again$"):
        read("maps/mars.xodr")


def test_no_module_looks_for_data_beside_its_source() -> None:
    users = set()
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.Name) and node.id == "__file__" for node in ast.walk(tree)):
            users.add(path.relative_to(ROOT).as_posix())
    assert users == set(READ_THEIR_SOURCE)


def test_every_folder_with_modules_is_a_package() -> None:
    assert {path.parent for path in MODULES if not (path.parent / "__init__.py").exists()} == set()


def test_the_wheel_ships_the_packages_and_the_data_where_they_are_looked_for() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == [*PACKAGES, assets.CHECKOUT]
    assert wheel["sources"] == {assets.CHECKOUT: f"sim/{assets.INSTALLED}"}


def test_the_version_is_that_of_the_distribution() -> None:
    assert version("lgdrl") == lgdrl.__version__


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_an_installation_inside_another_repository_does_not_report_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    code = tmp_path / "runs.py"
    code.touch()
    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    monkeypatch.setattr(runs, "__file__", str(code))
    assert runs.fingerprint_environment()["git_commit"] is None
    git("add", "runs.py")
    git("commit", "-m", "ours")
    assert runs.fingerprint_environment()["git_commit"]
