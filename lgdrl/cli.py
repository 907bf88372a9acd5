"""The `lgdrl` command. Only argument parsing happens here; each command imports what it needs when it runs.

Exit codes: 0 done, 1 a run failed, 2 bad input (one line on stderr says what, which value, what to do), 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points

from lgdrl import __version__

PUBLISHED = "published"
CARLA_LITE = "carla-lite"
"""A command with a parser of its own, so that the server can be started without this package too."""
BENCHES = "lgdrl.benches"
"""Entry point group of further benchmarks: functions of what follows `lgdrl bench NAME`, with parsers of their own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [CARLA_LITE]:
        return guarded(f"lgdrl {CARLA_LITE}", lambda: _carla_lite(words[1:]))
    if words[:1] == ["bench"] and len(words) > 1 and words[1] in _benches():
        return guarded(f"lgdrl bench {words[1]}", lambda: _benches()[words[1]].load()(words[2:]))
    arguments = _parser().parse_args(words)
    if arguments.command is None:
        _parser().print_help()
        return 0

    def run() -> int | None:
        from lgdrl import commands

        return getattr(commands, arguments.run)(arguments)

    return guarded("lgdrl", run)


def guarded(program: str, run: Callable[[], int | None]) -> int:
    """The exit code of `run`; what it raises on purpose becomes one line on stderr."""
    from lgdrl.runs import RunFailed
    from sim.carla.errors import SimError
    from sim.errors import UsageError

    try:
        return run() or 0
    except (UsageError, RunFailed, SimError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what was saved can be continued", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _carla_lite(words: Sequence[str]) -> int:
    from sim.errors import UsageError

    try:
        from sim.carla_lite.server import main as serve
    except ImportError as error:
        raise UsageError(f"carla-lite needs {error.name}: pip install 'lgdrl[carla-lite]'") from None
    return serve(words, f"lgdrl {CARLA_LITE}")


def _benches() -> dict[str, EntryPoint]:
    """Benchmarks of other packages, by name; nothing is imported yet."""
    return {entry.name: entry for entry in sorted(entry_points(group=BENCHES), key=lambda entry: entry.name)}


def _seed(text: str) -> int | str:
    if text == PUBLISHED:
        return PUBLISHED
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number >= 0 nor '{PUBLISHED}'")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lgdrl",
        description="Train driving policies under the guidance of LLM, rule-based and human experts.",
    )
    parser.add_argument("--version", action="version", version=f"lgdrl {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    _add_play(commands)
    _add_profile(commands)
    _add_demos(commands)
    _add_list(commands)
    _add_bench(commands)
    _add_serve_lm(commands)
    _add_llm(commands)
    commands.add_parser(CARLA_LITE, help="serve a CARLA world without Unreal and without a GPU", add_help=False)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, text: str, run: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_world(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenario", help="which task (see `lgdrl list`)")
    parser.add_argument("--backend", help="which simulator computes it; default: the scenario's fastest")


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="config overrides, e.g. learner_options.gamma=0.98"
    )


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "demo", "train LGDRL and its rivals on the published task and show the results", "demo")
    parser.add_argument("--out", default="runs/demo", help="output folder, continued if it exists (default: runs/demo)")


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "train", "train a policy with an expert's guidance", "train")
    _add_world(parser)
    parser.add_argument("--expert", help="who guides (default: rule)")
    parser.add_argument("--strategy", help="how the guidance is used (default: lgdrl)")
    parser.add_argument("--learner", help="what learns (default: discrete-sac)")
    parser.add_argument("--steps", type=_count, help="decisions over all worlds (default: 60000)")
    parser.add_argument("--seed", type=_seed, help=f"root seed, or '{PUBLISHED}' for the published layout")
    parser.add_argument("--out", help="new run folder (default: runs/STRATEGY-SCENARIO-SEED)")
    parser.add_argument("--config", help="YAML file, e.g. the config.yaml of another run")
    parser.add_argument("--resume", metavar="RUN", help="continue this run from its last checkpoint")
    parser.add_argument("--json", metavar="FILE", help="write the final figures here")
    _add_overrides(parser)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "evaluate", "drive a trained policy (expert off) or an expert on fixed seeds", "evaluate"
    )
    parser.add_argument("run_folder", nargs="?", metavar="RUN", help="a finished run; or use --expert")
    parser.add_argument("--expert", help="drive this expert instead of a run")
    _add_world(parser)
    parser.add_argument("--episodes", type=_count, default=1000, help="default: 1000")
    parser.add_argument("--seed", type=_seed, default=10_000, help=f"first held-out seed (10000), or '{PUBLISHED}'")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--video", metavar="FILE", help="also record the first episode (.mp4 or .gif)")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="config overrides")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "compare", "train several strategies x seeds in parallel, into one table", "compare")
    parser.add_argument("--config", help="YAML file with base, arms, seeds, references")
    parser.add_argument("--strategies", help="comma-separated strategies, instead of the file's arms")
    _add_world(parser)
    parser.add_argument("--expert", help="who guides all arms")
    parser.add_argument("--steps", type=_count, help="decisions of each run")
    parser.add_argument("--seeds", type=_count, help="number of training seeds: 0, 1, ...")
    parser.add_argument("--seed", type=_seed, help="first training seed (default: 0)")
    parser.add_argument("--episodes", type=_count, help="held-out episodes of each run")
    parser.add_argument("--jobs", type=_count, default=2, help="processes (default: 2)")
    parser.add_argument("--out", default="runs/comparison", help="output folder; continued if it exists")
    parser.add_argument("--json", metavar="FILE", help="write the figures here as well")
    _add_overrides(parser)


def _add_play(commands: argparse._SubParsersAction) -> None:
    text = "watch, drive, teach, compare and replay in a window; or film it without one"
    parser = _command(commands, "play", text, "play")
    parser.add_argument(
        "what",
        nargs="*",
        metavar="DRIVER",
        help="a run folder, expert:NAME or a recording; two are compared; nothing: you drive",
    )
    _add_world(parser)
    parser.add_argument("--expert", help="who advises, or drives where nothing else is named")
    parser.add_argument("--drive", action="store_true", help="you drive, --expert only advises")
    parser.add_argument("--train", action="store_true", help="train live: watch it learn, take the wheel at any time")
    parser.add_argument("--strategy", help="with --train (default: lgdrl)")
    parser.add_argument("--steps", type=_count, help="with --train: decisions")
    parser.add_argument("--out", help="with --train: new run folder")
    parser.add_argument("--config", help="with --train: YAML file")
    parser.add_argument("--seed", type=_seed, default=0, help=f"of the first episode (0), or '{PUBLISHED}'")
    parser.add_argument("--episodes", type=_count, help="leave after that many (default: go on; films: 1)")
    parser.add_argument(
        "--replay", metavar="RUN", help="step through the moments at which its training asked the expert"
    )
    parser.add_argument("--record", metavar="FILE", help="no window: film the driver into FILE (.mp4 or .gif)")
    parser.add_argument("--save", metavar="DIR", help="keep every finished episode there, to replay or learn from")
    parser.add_argument("--pace", type=float, default=1.0, help="times real time (default: 1)")
    parser.add_argument("--theme", default="light", help="light (default) or dark")
    parser.add_argument("--size", help="of the window (default: 1280x720) or the film (1280x320)")
    parser.add_argument("--keys", metavar="FILE", help="YAML file that remaps keys and buttons")
    parser.add_argument("--dead-man", action="store_true", help="the car is yours only while you hold a key")
    parser.add_argument("--scripted-person", metavar="EXPERT", help="press the keys that this expert would press")
    parser.add_argument("--fast", action="store_true", help="as fast as it can, not in real time")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="config overrides")


def _add_profile(commands: argparse._SubParsersAction) -> None:
    text = "how late an expert's advice comes, and what that does to a car"
    parser = _command(commands, "profile", text, "profile")
    parser.add_argument("--expert", help="comma-separated (default: llm)")
    parser.add_argument("--scenario", help="comma-separated (default: lane-change)")
    parser.add_argument("--backend", help="which simulator computes them")
    parser.add_argument(
        "--load",
        help="comma-separated closed:CARS, clock:CARS, constant:RATE, poisson:RATE, trace:FILE (closed:1,clock:8)",
    )
    parser.add_argument("--frequency", help="comma-separated decisions per second of a car (default: the scenario's)")
    parser.add_argument("--stall", type=float, metavar="SECONDS", help="let the expert stand still for so long, too")
    parser.add_argument("--decisions", type=_count, help="questions of each load and repeat (default: 200)")
    parser.add_argument("--repeats", type=_count, help="default: 3")
    parser.add_argument("--quick", action="store_true", help="latency only: no judging, no driving late, no training")
    parser.add_argument(
        "--faults", metavar="MIX", help="ask our fault server: none, mild, full, a list, or a YAML file"
    )
    parser.add_argument("--seed", type=int, help="default: 0")
    parser.add_argument("--config", help="YAML file, e.g. experiments/profile.yaml")
    parser.add_argument("--out", default="runs/profile", help="folder of the report (default: runs/profile)")
    parser.add_argument("--json", metavar="FILE", help="write the figures here as well")
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="config overrides")
    actions = parser.add_subparsers(dest="action", metavar="compare")
    gate = _command(actions, "compare", "compare two profiles, as a gate against regressions", "profile_compare")
    gate.add_argument("before", metavar="A.json")
    gate.add_argument("after", metavar="B.json")
    gate.add_argument("--fail-on", default="", metavar="RULES", help="e.g. p95=+10%%,miss=+1pt: exit code 1 beyond")
    gate.add_argument("--json", metavar="FILE", help="write the comparison here")


def _add_demos(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("demos", help="look into recorded episodes, or exchange them as Minari datasets")
    parser.set_defaults(run="demos_help")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = _command(actions, "info", "what a recording holds", "demos_info")
    info.add_argument("recording", metavar="RECORDING", help="an .npz file, or a folder of them")
    info.add_argument("--json", metavar="FILE", help="write the figures here")
    export = _command(actions, "export", "write a recording as a new Minari dataset", "demos_export")
    export.add_argument("recording", metavar="RECORDING", help="an .npz file, or a folder of them")
    export.add_argument("dataset_id", metavar="DATASET_ID", help="e.g. lane-change/person-v0")
    bring = _command(actions, "import", "make a recording of a Minari dataset", "demos_import")
    bring.add_argument("dataset_id", metavar="DATASET_ID", help="a dataset that was exported here or elsewhere")
    bring.add_argument("out", metavar="OUT", help="new folder, or an .npz file for one episode")


def _add_list(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "list", "show scenarios, experts, strategies and their parts", "show_list")
    kinds = ["scenarios", "experts", "strategies", "learners", "arbiters", "gates"]
    parser.add_argument("what", nargs="?", choices=kinds, help="default: all")
    parser.add_argument("--json", metavar="FILE", help="write the lists here")


def _add_bench(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure speed on this machine; run the studies of the documentation")
    parser.set_defaults(run="bench_help")
    actions = parser.add_subparsers(dest="action", metavar="WHAT", required=True)
    worlds = _command(actions, "sim", "simulators side by side, interleaved in one run", "bench_sim")
    worlds.add_argument("--scenario", default="highway-v0,highway-fast-v0", help="comma-separated")
    worlds.add_argument("--policy", default="random", help="random (default) or slower")
    worlds.add_argument("--rounds", type=_count, default=3, help="default: 3")
    worlds.add_argument("--seconds", type=float, default=2.0, help="per simulator and round (default: 2)")
    worlds.add_argument("--threads", type=_count, default=2, help="of the parallel engine (default: 2)")
    worlds.add_argument("--seed", type=_seed, default=0)
    worlds.add_argument("--json", metavar="FILE", help="write the figures here")
    worlds.add_argument("--plot", metavar="FILE", help="draw them here (.png or .svg)")
    for name, entry in _benches().items():
        actions.add_parser(name, help=f"a study ({entry.module}); see `lgdrl bench {name} --help`", add_help=False)


def _add_serve_lm(commands: argparse._SubParsersAction) -> None:
    text = "serve the embedded driver, or another local model, as an OpenAI-compatible endpoint"
    parser = _command(commands, "serve-lm", text, "serve_lm")
    parser.add_argument(
        "--model",
        default="driver",
        help="driver (default), smollm2 (see `lgdrl llm fetch`), or a .gguf or .safetensors file",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: loopback only")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")


def _add_llm(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("llm", help="fetch a small language model, and judge experts")
    parser.set_defaults(run="llm_help")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    fetch = _command(actions, "fetch", "download the pinned small model (93 MB) and check its hash", "llm_fetch")
    fetch.add_argument("--dir", help="where to keep it (default: the user's cache)")
    judge = _command(actions, "eval", "how good an expert is, beside braking, idling, chance and a rule", "llm_eval")
    judge.add_argument("--experts", default="llm", help="comma-separated (default: llm)")
    judge.add_argument("--scenario", default="highway-v0")
    judge.add_argument("--scenes", type=_count, default=60, help="scenes with safe and unsafe actions (default: 60)")
    judge.add_argument("--episodes", type=int, default=0, help="held-out episodes that each drives alone (default: 0)")
    judge.add_argument("--seed", type=_seed, default=0)
    judge.add_argument("--json", metavar="FILE", help="write the figures here")
    judge.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="expert options")


if __name__ == "__main__":
    sys.exit(main())
