"""gymnasium ids: every built-in driving scenario as `lgdrl/NAME`, e.g. `gymnasium.make("lgdrl/highway-fast-v0")`.

Importing `sim` or `lgdrl` is enough; `gymnasium.make("sim:lgdrl/highway-fast-v0")` imports it by itself. gymnasium
takes a quarter of a second, which `lgdrl --help` does not have: where it has not been imported yet, the ids are
registered as soon as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    import gymnasium
    from gymnasium.envs.registration import EnvSpec

NAMESPACE = "lgdrl"
GYMNASIUM = "gymnasium"
ENV = "sim.ids:make_env"
VECTOR_ENV = "sim.ids:make_vector_env"


def announce() -> None:
    """Register the ids, now or when gymnasium is imported."""
    if GYMNASIUM in sys.modules:
        register()
    elif not any(isinstance(finder, _AfterGymnasium) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterGymnasium())


def register() -> None:
    """Register the ids of the built-in driving scenarios that gymnasium does not know yet."""
    import gymnasium

    from sim.scenarios import built_in

    for name, scenario in built_in().items():
        env_id = f"{NAMESPACE}/{name}"
        if scenario.driving and env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=ENV, vector_entry_point=VECTOR_ENV, kwargs={"scenario": name})


def spec_of(scenario: str, backend: str | None, config: Mapping[str, Any] | None, render_mode: str | None) -> EnvSpec:
    """The spec from which `gymnasium.make` builds an environment again, here or on another machine.

    Args:
        scenario: Registry name.
        backend: As given to `sim.make`.
        config: As given to `sim.make`.
        render_mode: As given to `sim.make`.
    Returns:
        The spec; it survives `to_json` where the config is plain.
    """
    from gymnasium.envs.registration import EnvSpec

    given = {"backend": backend, "config": dict(config) if config else None, "render_mode": render_mode}
    return EnvSpec(
        id=f"{NAMESPACE}/{scenario}",
        entry_point=ENV,
        vector_entry_point=VECTOR_ENV,
        order_enforce=False,
        disable_env_checker=True,
        kwargs={"scenario": scenario} | {name: value for name, value in given.items() if value is not None},
    )


def make_env(scenario: str, **keywords: Any) -> gymnasium.Env:
    """`sim.make`, as the entry point of the ids: `config`, `backend` and `render_mode` are passed on."""
    import sim

    return sim.make(scenario, **keywords)


def make_vector_env(
    scenario: str, num_envs: int = 1, autoreset_mode: Any = "NextStep", **keywords: Any
) -> gymnasium.vector.VectorEnv:
    """`sim.make_vector`, as the entry point of `gymnasium.make_vec`."""
    import sim

    return sim.make_vector(scenario, num_envs, autoreset=autoreset_mode, **keywords)


class _AfterGymnasium:
    """A finder on `sys.meta_path` that waits for the import of gymnasium, and registers the ids when it is done."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != GYMNASIUM:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
