"""What a comparison needs before anything of it starts: names that make folders, and methods and experts that exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lgdrl.footprint import run_memory
from lgdrl.locks import LOCK
from lgdrl.memory import episodes_memory, require_memory
from sim.errors import UsageError

if TYPE_CHECKING:
    from lgdrl.config import RunConfig

PLOTS = ("success.png", "curves.png", "labels.png")
TAKEN = frozenset({LOCK, "references", "compare.yaml", "comparison.json", "comparison.md", *PLOTS})
"""Names in the output folder that belong to the comparison itself."""
LONGEST_NAME = 100
FORBIDDEN = '/\\:*?"<>|'
"""Characters that separate folders, or that some systems do not allow in names."""


def check_names(arms: Iterable[str], references: Sequence[str]) -> None:
    """Check that each arm has a folder of its own below the output folder.

    Args:
        arms: Names of the arms.
        references: Names of experts and trivial baselines.
    Raises:
        UsageError: A name that is no folder name, is taken, or is there twice.
    """
    known: dict[str, str] = {}
    for name in arms:
        if not name.strip() or name != name.strip() or name.startswith((".", "~")) or not name.isprintable():
            raise UsageError(f"arm {name!r:.120}: choose a name that can be a folder, without dots or spaces in front")
        if any(character in name for character in FORBIDDEN):
            raise UsageError(f"arm {name!r:.120}: it names a folder below the output folder; leave out {FORBIDDEN}")
        if len(name.encode(errors="replace")) > LONGEST_NAME:
            raise UsageError(f"arm {name[:40]!r}...: choose a name of {LONGEST_NAME} bytes at most")
        if name.casefold() in TAKEN:
            raise UsageError(f"arm {name!r}: the comparison itself uses this name in its folder; choose another one")
        if name.casefold() in known:
            raise UsageError(
                f"arms {known[name.casefold()]!r} and {name!r} would share a folder where letter case does not count: "
                "rename one"
            )
        known[name.casefold()] = name
    twice = [each for k, each in enumerate(references) if each in references[:k]]
    if twice:
        raise UsageError(f"reference {twice[0]!r} is there twice: keep one")


def check_arms(configs: Mapping[str, RunConfig], episodes: int, jobs: int) -> None:
    """Check what each arm's run would refuse at its start.

    Args:
        configs: The resolved config of one run of each arm.
        episodes: Held-out episodes of each run.
        jobs: Runs at the same time.
    Raises:
        UsageError: What is refused, and in which arm.
    """
    for arm, config in configs.items():
        try:
            config.method.check(config, None)
            needs = run_memory(config) | episodes_memory(episodes)
            require_memory({name: min(jobs, len(configs)) * number for name, number in needs.items()})
        except UsageError as error:
            raise UsageError(f"arms.{arm}: {error}") from None


def check_references(config: RunConfig, references: Sequence[str]) -> None:
    """Check that each reference is an expert that can drive in the scenario.

    Args:
        config: The resolved config of the comparison's base.
        references: Names of experts.
    Raises:
        UsageError: One does not exist or cannot drive there.
    """
    import sim
    from experts import registry
    from experts.driving import NEEDS
    from experts.provider import check_needs

    for name in references:
        options: Mapping[str, Any] = config.expert_options if name == config.expert else {}
        with registry.make(name, config.scenario, options, 0) as expert:
            check_needs(expert, NEEDS if sim.get(config.scenario).driving else frozenset(), config.scenario)
