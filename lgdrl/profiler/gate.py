"""`lgdrl profile compare A B --fail-on p95=+10%,miss=+1pt`: a gate against regressions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

from lgdrl.profiler.result import SCHEMA, VERSION
from sim.errors import UsageError, unknown

METRICS = ("p50", "p90", "p95", "p99", "ttft", "ttfa", "miss", "goodput", "tokens", "budget")
"""p50 ... p99: end to end; ttft, ttfa: their p95; all in s. miss: share. goodput: per s. tokens: per decision.
budget: latency budget under hold-last, s; infinite where success never fell."""
_RULE = re.compile(r"(?P<metric>[a-z0-9]+)=(?P<sign>[+-])(?P<size>\d+(\.\d+)?)(?P<unit>%|pt|ms|s|)")


@dataclass(frozen=True)
class Rule:
    """How far a metric may move: up (sign +) or down (-), by a share of its old value or an amount in its own unit."""

    metric: str
    sign: int
    size: float
    relative: bool
    text: str

    def broken(self, old: float, new: float) -> bool:
        """Whether the change from `old` to `new` is more than that. An infinite one is lost when it becomes finite."""
        allowed = self.size * abs(old) if self.relative and isfinite(old) else self.size
        return self.sign * (new - old) > allowed + 1e-12


@dataclass(frozen=True)
class Change:
    """One metric of one expert, scenario and load, before and after."""

    where: str
    metric: str
    old: float | None
    new: float | None
    broken: Rule | None

    @property
    def failed(self) -> bool:
        return self.broken is not None


def parse_rules(text: str) -> list[Rule]:
    """Rules of `--fail-on`.

    Args:
        text: Rules with commas between them, such as p95=+10%,miss=+1pt.
    Raises:
        UsageError: Names the part that is not a rule.
    """
    rules = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _RULE.fullmatch(part)
        if found is None:
            raise UsageError(f"--fail-on {part!r}: write a metric and a bound, e.g. p95=+10%, p99=+5ms, miss=+1pt")
        if found["metric"] not in METRICS:
            raise unknown("metric in --fail-on", found["metric"], METRICS)
        scale = {"%": 0.01, "pt": 0.01, "ms": 0.001}.get(found["unit"], 1.0)
        sign = 1 if found["sign"] == "+" else -1
        rules.append(Rule(found["metric"], sign, float(found["size"]) * scale, found["unit"] == "%", part))
    return rules


def load_profile(path: Path | str) -> dict[str, Any]:
    """A profile that `lgdrl profile` wrote.

    Args:
        path: Its profile.json.
    Raises:
        UsageError: The file cannot be read, or is something else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"profile {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"profile {str(path)!r} is not JSON: give the profile.json of `lgdrl profile`") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise UsageError(f"{str(path)!r} is no profile: give the profile.json of `lgdrl profile`")
    if data.get("version") != VERSION:
        raise UsageError(f"profile {str(path)!r} has version {data.get('version')}, this program reads {VERSION}")
    return data


def figures(data: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The comparable figures of a profile, by "scenario / expert / load"."""
    found: dict[str, dict[str, float | None]] = {}
    for scenario in data["scenarios"]:
        for expert in scenario["experts"]:
            budgets = expert["latency_budget_s"]
            for cell in expert["cells"]:
                latencies = cell["latencies"]
                whole = latencies["e2e"]
                values = {name: whole["percentiles"].get(name) for name in ("p50", "p90", "p95", "p99")}
                for name in ("ttft", "ttfa"):
                    values[name] = latencies[name]["percentiles"]["p95"] if latencies[name] else None
                values["miss"] = cell["deadline"]["missed"]
                values["goodput"] = cell["deadline"]["goodput"]
                values["tokens"] = cell["tokens"] / cell["queries"]
                if "hold-last" in budgets:
                    values["budget"] = inf if budgets["hold-last"] is None else budgets["hold-last"]
                found[f"{scenario['label']} / {expert['name']} / {cell['load']}"] = values
    return found


def compare(old: Mapping[str, Any], new: Mapping[str, Any], rules: Sequence[Rule]) -> list[Change]:
    """Every figure before and after.

    Args:
        old: A profile, as `load_profile` returns it.
        new: The profile that is checked.
        rules: How far figures may move. A figure that a rule names and `new` lacks breaks the rule too.
    """
    before, after = figures(old), figures(new)
    changes = []
    for where, values in before.items():
        for metric, value in values.items():
            now = after.get(where, {}).get(metric)
            broken = None
            for rule in rules:
                if rule.metric == metric and value is not None and (now is None or rule.broken(value, now)):
                    broken = rule
            if value is not None or now is not None:
                changes.append(Change(where, metric, value, now, broken))
    return changes
