"""What the command line offers for language models: fetch the small model, serve a model, evaluate experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lgdrl.quality.evaluation import ExpertEvaluation

NO_SKILL = "note: no driving skill was measured for this model; it is for demos, latency profiling and tests"

SIDE_BY_SIDE = 50
"""Episodes that an expert drives in one batch."""


def fetch_command(target_dir: str | None = None) -> Path:
    """Download and verify SmolLM2-135M-Instruct (93 MB); prints and returns its path. UsageError on failure."""
    from experts.serving.fetch import fetch

    path = fetch(target_dir)
    print(path)
    print(NO_SKILL)
    return path


def serve_command(model: str = "driver", host: str = "127.0.0.1", port: int = 8000) -> int:
    """Serve `driver`, `smollm2`, or a .gguf or .safetensors file behind the OpenAI protocol; returns the exit code."""
    from experts.serving.server import SMOLLM2, open_model, serve

    served = open_model(model)
    if model == SMOLLM2:
        print(NO_SKILL)
    return serve(served, host, port)


def eval_command(
    expert_names: Sequence[str],
    scenario: str,
    scenes: int = 60,
    seed: int = 0,
    json_path: str | None = None,
    episodes: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> ExpertEvaluation:
    """Evaluate experts beside always SLOWER, always IDLE, random and (where it exists) the rule; prints the table.

    Args:
        expert_names: As in the registry.
        scenario: Name of the scenario.
        scenes: Scenes to keep.
        seed: Root seed.
        json_path: Where to write JSON; None: nowhere.
        episodes: Driven by each expert alone.
        options: By expert.

    Raises:
        UsageError: A name or option is unknown, or the JSON file cannot be written.
    """
    import sim
    from experts import registry
    from lgdrl.quality.evaluation import EvaluationConfig, evaluate, trivial_baselines
    from lgdrl.quality.report import print_table, to_json
    from sim.errors import UsageError, unknown

    given = options or {}
    for name in given:
        if name not in expert_names:
            raise unknown("expert in options", name, expert_names)
    names = list(dict.fromkeys(expert_names))
    if "rule" in registry.available() and "rule" not in names:
        names.append("rule")
    config = EvaluationConfig(scenes=scenes, seed=seed, episodes=episodes)
    experts = []
    env = sim.make_driving(scenario)
    envs = sim.make_driving_vec(scenario, min(episodes, SIDE_BY_SIDE)) if episodes else None
    try:
        for name in names:
            experts.append(registry.make(name, scenario, given.get(name), seed))
        result = evaluate([*experts, *trivial_baselines(seed)], env, config, envs)
    finally:
        env.close()
        if envs is not None:
            envs.close()
        for expert in experts:
            expert.close()
    print_table(result)
    if json_path is not None:
        try:
            Path(json_path).write_text(to_json(result) + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {json_path!r}: {error.strerror}") from None
    return result
