"""The `lgdrl` command. Only argument parsing happens here; each command imports what it needs when it runs.

Exit codes: 0 done, 1 a run failed, 2 bad input (one line on stderr says what, which value, what to do), 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

from lgdrl import __version__
from lgdrl.seeds import DATA_SEED, FINAL_SEED, PUBLISHED
from sim.bounds import LARGEST, LARGEST_SEED
from sim.errors import UsageError, unknown

CARLA_LITE = "carla-lite"
"""A command with a parser of its own, so that the server can be started without this package too."""
OVERRIDE = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")
"""How KEY=VALUE begins; a path that looks so is written ./a=b."""
BENCHES = "lgdrl.benches"
"""Entry point group of further benchmarks: functions of what follows `lgdrl bench NAME`, with parsers of their own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words; None: those of the process.
    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [CARLA_LITE]:
        return guarded(f"lgdrl {CARLA_LITE}", lambda: _carla_lite(words[1:]))
    if words[:1] == ["bench"] and len(words) > 1 and words[1] in _benches():
        return guarded(f"lgdrl bench {words[1]}", lambda: _benches()[words[1]].load()(words[2:]))
    parser, words = _leaf(words)
    if parser.get_default("run") is None and not words and parser.get_default("nested"):
        parser.print_help()
        return 0
    arguments = parser.parse_intermixed_args(words) if parser.get_default("run") else parser.parse_args(words)
    _sort_words(parser, arguments)

    def run() -> int | None:
        from sim.files import check_outputs
        from sim.trust import trusting

        check_outputs(vars(arguments))
        with trusting(getattr(arguments, "trust", False)):
            module, _, function = arguments.run.rpartition(":")
            return getattr(import_module(module or "lgdrl.commands"), function)(arguments)

    return guarded("lgdrl", run)


def guarded(program: str, run: Callable[[], int | None]) -> int:
    """Run a command with errors as one line on stderr.

    Args:
        program: Its name, before the error.
        run: The command; its return value is the exit code, None for 0.
    Returns:
        The exit code.
    """
    from lgdrl.threads import limit_threads

    try:
        limit_threads()  # before numerical libraries are imported
    except ValueError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    from lgdrl.runs import RunFailed
    from sim.carla.errors import SimError

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
    if not _is_whole(text) or int(text) > LARGEST_SEED:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise argparse.ArgumentTypeError(f"{shown!r} is neither a whole number from 0 to 2^62 nor '{PUBLISHED}'")
    return int(text)


def _count(text: str) -> int:
    if not _is_whole(text) or not 1 <= int(text) <= LARGEST:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise argparse.ArgumentTypeError(f"{shown!r} is not a whole number from 1 to {LARGEST:,}")
    return int(text)


def _whole(text: str) -> int:
    if not _is_whole(text) or int(text) > LARGEST:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise argparse.ArgumentTypeError(f"{shown!r} is not a whole number from 0 to {LARGEST:,}")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 30


class _Parser(argparse.ArgumentParser):
    """One line for what cannot be parsed."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _leaf(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of the command that words begin with, and the other words."""
    parser: argparse.ArgumentParser = _parser()
    while words and words[0] in (nested := parser.get_default("nested") or {}):
        parser, words = nested[words[0]], words[1:]
    if words and nested and not words[0].startswith("-") and parser.get_default("run") is None:
        parser.error(str(unknown("command", words[0], nested)))
    return parser, words


def _sort_words(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Split the words without a dash into overrides, wherever they stand on the line, and names."""
    words = getattr(arguments, "words", None)
    if words is None:
        return
    most = parser.get_default("most_names")
    arguments.overrides = [word for word in words if not most or OVERRIDE.match(word)]
    arguments.names = [word for word in words if word not in arguments.overrides]
    if len(arguments.names) > most:
        parser.error(f"unexpected {arguments.names[most]!r}: settings are written KEY=VALUE")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
    _add_collect(commands)
    _add_label(commands)
    _add_list(commands)
    _add_bench(commands)
    _add_serve_lm(commands)
    _add_llm(commands)
    commands.add_parser(CARLA_LITE, help="serve CARLA's API without Unreal Engine and without a GPU", add_help=False)
    parser.set_defaults(nested=commands.choices)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, text: str, run: str) -> argparse.ArgumentParser:
    """A command; `run` is a function of `lgdrl.commands`, or "module:function"."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


Group = argparse.ArgumentParser | argparse._ArgumentGroup


def _add_environment(group: Group) -> None:
    group.add_argument("--scenario", help="environment to drive in (see `lgdrl list scenarios`)")
    group.add_argument("--backend", help="simulator (default: the scenario's fastest)")


def _add_json(group: Group, text: str = "write the results as JSON") -> None:
    group.add_argument("--json", metavar="FILE", help=text)


def _add_trust(group: Group) -> None:
    group.add_argument("--trust", action="store_true", help="load files that can run code of their authors (pickles)")


def _add_words(
    parser: argparse.ArgumentParser, overrides: str, names: int = 0, metavar: str = "", text: str = ""
) -> None:
    """Words without a dash: overrides, and up to `names` others.

    Args:
        parser: Of the command.
        overrides: What they set, with an example.
        names: Most other words.
        metavar: What stands for a name in the help.
        text: What they are.
    """
    shown = f"{metavar} | KEY=VALUE" if names else "KEY=VALUE"
    parser.add_argument("words", nargs="*", metavar=shown, help=f"{text}{'; ' if text else ''}{overrides}")
    parser.set_defaults(most_names=names)


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "demo", "train LGDRL and its rivals on the published task and show the results", "demo")
    parser.add_argument("--out", default="runs/demo", help="output folder, continued if it exists (default: runs/demo)")


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "train", "train a policy with an expert's guidance", "train")
    _add_words(parser, "config overrides, e.g. learner_options.gamma=0.98")
    method = parser.add_argument_group("environment and method")
    _add_environment(method)
    method.add_argument("--expert", help="expert that provides labels (default: rule)")
    method.add_argument("--strategy", help="how the labels are used (default: lgdrl)")
    method.add_argument("--learner", help="algorithm that learns (default: discrete-sac)")
    method.add_argument("--steps", type=_count, help="decisions, summed over all environments (default: 60000)")
    method.add_argument("--data", metavar="FILE", help="transition data set that offline strategies learn from")
    method.add_argument(
        "--label-budget",
        type=_whole,
        metavar="N",
        help="most labels to ask the expert for (default: no limit)",
    )
    method.add_argument("--seed", type=_seed, help=f"root seed, or '{PUBLISHED}' for the published traffic layout")
    method.add_argument("--config", metavar="FILE", help="YAML file, e.g. the config.yaml of another run")
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="DIR", help="new run folder (default: runs/STRATEGY-SCENARIO-SEED)")
    output.add_argument("--resume", metavar="RUN", help="continue this run; with --steps, beyond its present end")
    _add_trust(output)
    _add_json(output, "write the last metrics as JSON")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "evaluate", "evaluate a trained policy (expert off) or an expert on fixed seeds", "evaluate"
    )
    _add_words(parser, "config overrides, e.g. num_envs=4", 1, "RUN", "finished run, or use --expert")
    parser.add_argument("--expert", help="evaluate this expert instead of a run")
    _add_environment(parser)
    parser.add_argument("--episodes", type=_count, default=1000, help="number of episodes (default: 1000)")
    parser.add_argument(
        "--seed", type=_seed, default=FINAL_SEED, help=f"first held-out seed (default: {FINAL_SEED}), or '{PUBLISHED}'"
    )
    _add_trust(parser)
    output = parser.add_argument_group("output")
    _add_json(output)
    output.add_argument("--video", metavar="FILE", help="also record the first episode (.mp4 or .gif)")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    text = "train several strategies with several seeds in parallel and tabulate the results"
    parser = _command(commands, "compare", text, "compare")
    _add_words(parser, "config overrides, e.g. base.learner_options.gamma=0.98")
    arms = parser.add_argument_group("arms")
    arms.add_argument("--config", metavar="FILE", help="YAML file with base, arms, seeds and references")
    arms.add_argument("--strategies", help="comma-separated strategies, in place of the file's arms")
    _add_environment(arms)
    arms.add_argument("--expert", help="expert of all arms")
    arms.add_argument("--steps", type=_count, help="decisions of each run")
    arms.add_argument(
        "--label-budgets",
        type=lambda text: [_whole(word) for word in text.split(",")],
        metavar="N,N,...",
        help="train every arm at each of these label budgets, e.g. 20,50,250",
    )
    arms.add_argument("--seeds", type=_count, help="number of training seeds")
    arms.add_argument("--seed", type=_seed, help="first training seed (default: 0)")
    arms.add_argument("--episodes", type=_count, help="held-out episodes of each run")
    output = parser.add_argument_group("execution and output")
    output.add_argument("--jobs", type=_count, default=2, help="worker processes (default: 2)")
    output.add_argument("--out", metavar="DIR", default="runs/comparison", help="output folder; continued if it exists")
    _add_trust(output)
    _add_json(output)


def _add_play(commands: argparse._SubParsersAction) -> None:
    text = "watch, drive, teach, compare and replay in a window, or film without one"
    parser = _command(commands, "play", text, "play")
    text = "run folder, expert:NAME or recording; two are compared; without one, you drive"
    _add_words(parser, "config overrides, e.g. scenario_config.lanes=3", 9, "DRIVER", text)
    _add_environment(parser)
    parser.add_argument("--expert", help="expert that labels every state, or drives where no DRIVER is named")
    parser.add_argument(
        "--seed", type=_seed, default=0, help=f"seed of the first episode (default: 0), or '{PUBLISHED}'"
    )
    parser.add_argument("--episodes", type=_count, help="number of episodes (default: unlimited; films: 1)")
    parser.add_argument(
        "--replay", metavar="RUN", help="step through the states at which this training queried its expert"
    )
    _add_trust(parser)
    driving = parser.add_argument_group("driving")
    driving.add_argument("--drive", action="store_true", help="you drive; --expert only labels")
    driving.add_argument("--dead-man", action="store_true", help="you drive only while you hold a key")
    driving.add_argument("--scripted-person", metavar="EXPERT", help="press the keys of this expert's decisions")
    driving.add_argument("--keys", metavar="FILE", help="YAML file that remaps keys and buttons")
    training = parser.add_argument_group("live training")
    training.add_argument("--train", action="store_true", help="train in the window; you may take over at any time")
    training.add_argument("--strategy", help="how labels are used (default: lgdrl)")
    training.add_argument("--learner", help="algorithm that learns (default: discrete-sac)")
    training.add_argument("--steps", type=_count, help="decisions")
    training.add_argument("--label-budget", type=_whole, metavar="N", help="most labels to ask the expert for")
    training.add_argument("--out", metavar="DIR", help="new run folder")
    training.add_argument("--config", metavar="FILE", help="YAML file of the run")
    output = parser.add_argument_group("recording")
    output.add_argument("--record", metavar="FILE", help="film the driver into FILE (.mp4 or .gif) without a window")
    output.add_argument("--save", metavar="DIR", help="keep every finished episode there, to replay or learn from")
    look = parser.add_argument_group("window and film")
    look.add_argument("--pace", type=float, default=1.0, help="simulated seconds per second (default: 1)")
    look.add_argument("--theme", default="light", help="light (default) or dark")
    look.add_argument(
        "--size", metavar="WxH", help="size of the window (default: 1280x720) or film (1280x320; of pictures 960x540)"
    )
    look.add_argument("--fast", action="store_true", help="run as fast as possible, not in real time")


def _add_profile(commands: argparse._SubParsersAction) -> None:
    text = "measure an expert's latency and its effect on driving"
    parser = _command(commands, "profile", text, "profile")
    _add_words(parser, "config overrides, e.g. safety.episodes=10")
    measured = parser.add_argument_group("what is measured")
    measured.add_argument("--expert", help="comma-separated (default: llm)")
    measured.add_argument("--scenario", help="comma-separated (default: lane-change)")
    measured.add_argument("--backend", help="simulator (default: each scenario's fastest)")
    measured.add_argument(
        "--load",
        help="comma-separated closed:CARS, clock:CARS, constant:RATE, poisson:RATE, trace:FILE "
        "(default: closed:1,clock:8)",
    )
    measured.add_argument("--frequency", help="comma-separated decisions per second of a car (default: the scenario's)")
    measured.add_argument("--stall", type=float, metavar="SECONDS", help="also freeze the expert for this time")
    measured.add_argument("--decisions", type=_count, help="queries of each load and repeat (default: 200)")
    measured.add_argument("--repeats", type=_count, help="repeats of each load (default: 3)")
    measured.add_argument("--quick", action="store_true", help="latency only: no quality, no late driving, no training")
    measured.add_argument(
        "--faults", metavar="MIX", help="query the fault server: none, mild, full, a list or a YAML file"
    )
    measured.add_argument("--seed", type=_seed, help="root seed (default: 0)")
    measured.add_argument("--config", metavar="FILE", help="YAML file, e.g. experiments/profile.yaml")
    _add_trust(measured)
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="DIR", default="runs/profile", help="report folder (default: runs/profile)")
    _add_json(output)
    text = "compare two profiles and fail on regressions"
    parser.epilog = f"lgdrl profile compare A.json B.json: {text}."
    gate = _Parser(prog="lgdrl profile compare", description=f"{text[0].upper()}{text[1:]}.")
    gate.set_defaults(run="profile_compare")
    parser.set_defaults(nested={"compare": gate})
    gate.add_argument("before", metavar="A.json")
    gate.add_argument("after", metavar="B.json")
    gate.add_argument("--fail-on", default="", metavar="RULES", help="allowed changes, e.g. p95=+10%%,miss=+1pt")
    _add_json(gate, "write the comparison as JSON")


def _add_demos(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("demos", help="inspect recordings and data sets, or exchange them as Minari datasets")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = _command(actions, "info", "summarise a recording or data set", "demos_info")
    info.add_argument("recording", metavar="RECORDING", help=".npz file, or folder of them")
    _add_json(info)
    export = _command(actions, "export", "write a recording or data set as a new Minari dataset", "demos_export")
    export.add_argument("recording", metavar="RECORDING", help=".npz file, or folder of them")
    export.add_argument("dataset_id", metavar="DATASET_ID", help="e.g. lane-change/person-v0")
    bring = _command(actions, "import", "write a Minari dataset as a recording or data set", "demos_import")
    bring.add_argument("dataset_id", metavar="DATASET_ID", help="dataset in the local Minari folder")
    parser.set_defaults(nested=actions.choices)
    bring.add_argument("target", metavar="OUT", help="new folder of episodes, or .npz file")


def _add_collect(commands: argparse._SubParsersAction) -> None:
    text = "let policies drive, and write every transition as a data set"
    parser = _command(commands, "collect", text, "lgdrl.data_commands:collect_command")
    _add_words(parser, "config overrides, e.g. scenario_config.lanes=3 or policy_options.llm.model=NAME")
    _add_environment(parser)
    parser.add_argument(
        "--policy", action="append", required=True, metavar="NAME[=SHARE]", help="expert that drives; may be repeated"
    )
    parser.add_argument("--mix", choices=["episodes", "steps"], default="episodes", help="what shares are shares of")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--episodes", type=_count, metavar="N", help="whole episodes")
    amount.add_argument("--steps", type=_count, metavar="N", help="transitions; the last episode may be broken off")
    parser.add_argument("--seed", type=_seed, default=DATA_SEED, help=f"of the first episode (default: {DATA_SEED})")
    text = "measure the reference returns: of random actions, and of the best policy (20 episodes of each)"
    parser.add_argument("--reference", action="store_true", help=text)
    _add_trust(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", dest="target", required=True, metavar="FILE.npz", help="the data set")
    _add_json(output)


def _add_label(commands: argparse._SubParsersAction) -> None:
    text = "label states of a data set with any expert, under a budget"
    parser = _command(commands, "label", text, "lgdrl.data_commands:label_command")
    parser.add_argument("data_set", metavar="FILE.npz", help="data set, see `lgdrl collect`")
    _add_words(parser, "config overrides, e.g. expert_options.model=NAME")
    parser.add_argument("--expert", required=True, help="expert that labels (see `lgdrl list experts`)")
    parser.add_argument("--budget", type=_count, metavar="N", help="most states to ask about (default: all)")
    parser.add_argument("--every", type=_count, metavar="K", help="every K-th state, not states at random")
    parser.add_argument("--seed", type=_seed, default=0, help="of the choice of states, and the expert's (default: 0)")
    _add_trust(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", dest="target", required=True, metavar="FILE.npz", help="the data set with labels")
    _add_json(output)


def _add_list(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "list", "list scenarios, experts, strategies and their parts", "show_list")
    kinds = ["scenarios", "experts", "strategies", "learners", "arbiters", "gates"]
    parser.add_argument("what", nargs="?", choices=kinds, help="default: all")
    text = "show what the engine covers of each highway-env scenario, and what goes to highway-env"
    parser.add_argument("--coverage", action="store_true", help=text)
    _add_json(parser, "write the lists as JSON")


def _add_bench(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure simulators or learners, or run a study of the documentation")
    actions = parser.add_subparsers(dest="action", metavar="BENCHMARK", required=True)
    speed = _command(actions, "sim", "measure simulators side by side, interleaved in one run", "bench_sim")
    speed.add_argument(
        "--scenario", default="highway-v0,highway-fast-v0", help="comma-separated (default: %(default)s)"
    )
    speed.add_argument("--policy", default="random", help="random (default) or slower")
    speed.add_argument("--rounds", type=_count, default=3, help="rounds (default: 3)")
    speed.add_argument("--seconds", type=float, default=2.0, help="time of each simulator in each round (default: 2)")
    speed.add_argument("--threads", type=_count, default=2, help="threads of the parallel engine (default: 2)")
    speed.add_argument("--seed", type=_seed, default=0, help="root seed (default: 0)")
    speed.add_argument(
        "--parity", action="store_true", help="compare engine and highway-env bit by bit instead of measuring speed"
    )
    speed.add_argument("--decisions", type=_count, default=100, help="with --parity: of each scenario (default: 100)")
    text = "measure gradient updates of learners side by side, interleaved in one run"
    updates = _command(actions, "learner", text, "bench_learner")
    updates.add_argument(
        "--learner",
        default="discrete-sac,sac,td3,dqn",
        metavar="NAME",
        help="off-policy learners, comma-separated (default: %(default)s)",
    )
    updates.add_argument(
        "--size",
        default="64/64,128/128,128/256,256/256",
        metavar="WIDTH/BATCH",
        help="units of both hidden layers and transitions per update, comma-separated (default: %(default)s)",
    )
    updates.add_argument("--rounds", type=_count, default=5, help="rounds (default: 5)")
    updates.add_argument("--seconds", type=float, default=1.0, help="time of each learner in each round (default: 1)")
    updates.add_argument("--seed", type=_seed, default=0, help="root seed (default: 0)")
    for measured in (speed, updates):
        _add_json(measured)
        measured.add_argument("--plot", metavar="FILE", help="plot the results (.png or .svg)")
    parser.set_defaults(nested=actions.choices)
    for name, entry in _benches().items():
        actions.add_parser(name, help=f"study {entry.module}; see `lgdrl bench {name} --help`", add_help=False)


def _add_serve_lm(commands: argparse._SubParsersAction) -> None:
    text = "serve the embedded driver, or another local model, as an OpenAI-compatible endpoint"
    parser = _command(commands, "serve-lm", text, "serve_lm")
    parser.add_argument(
        "--model",
        default="driver",
        help="driver (default), smollm2 (see `lgdrl llm fetch`), or a .gguf or .safetensors file",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: loopback only)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000); 0 takes a free one")


def _add_llm(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("llm", help="fetch a small language model, or evaluate experts on single scenes")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    fetch = _command(actions, "fetch", "download the pinned small model (93 MB) and check its hash", "llm_fetch")
    fetch.add_argument("--dir", help="folder to keep it in (default: the user's cache)")
    scored = _command(actions, "eval", "evaluate experts on scenes with safe and unsafe actions", "llm_eval")
    scored.add_argument("--experts", default="llm", help="comma-separated (default: llm)")
    scored.add_argument("--scenario", default="highway-v0", help="scenario of the scenes (default: highway-v0)")
    scored.add_argument("--scenes", type=_count, default=60, help="number of scenes (default: 60)")
    scored.add_argument(
        "--episodes", type=int, default=0, help="held-out episodes that each expert drives (default: 0)"
    )
    scored.add_argument("--seed", type=_seed, default=0, help="root seed (default: 0)")
    _add_json(scored)
    _add_words(scored, "options of the expert llm, e.g. model=gpt-4o-mini")
    parser.set_defaults(nested=actions.choices)


if __name__ == "__main__":
    sys.exit(main())
