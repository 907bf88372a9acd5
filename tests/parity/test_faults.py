"""Every slip that a parity test plants is still one of the sources: a moved line must not turn it into none."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests.parity
from tests.parity.oracle import ROOT

MODULES = [f"tests.parity.{found.name}" for found in pkgutil.iter_modules(tests.parity.__path__)]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("tests.parity.test_")])
def test_planted_slips_change_the_sources(module):
    for name, (path, old, new) in getattr(importlib.import_module(module), "FAULTS", {}).items():
        source = (ROOT / path).read_text(encoding="utf-8")
        assert old in source, f"{name}: {old!r} is not in {path}"
        assert source.replace(old, new) != source, name
