"""`lgdrl play`: sessions and options from the arguments, then the window or the film."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnasium import spaces

import sim
from experts.data.episodes import load_episodes
from experts.human import Hands
from lgdrl.config import RunConfig, load_config
from lgdrl.runs import Run
from lgdrl.seeds import PUBLISHED
from lgdrl.training import resume, start
from lgdrl.visualizer.drivers import (
    check_watchable,
    driven_by_hand,
    expert_of,
    queried_in_training,
    watched_expert,
    watched_run,
)
from lgdrl.visualizer.session import DriveSession, PlaySession, ReplaySession
from sim.errors import UsageError, unknown
from sim.render import THEMES, check_video

EXPERT = "expert:"


def play(arguments: Namespace, changes: Mapping[str, Any]) -> str:
    """Run `lgdrl play`.

    Args:
        arguments: Of the command line.
        changes: The config changes among them.
    Returns:
        A line to print at the end; may be empty.
    Raises:
        UsageError: The arguments do not fit together, or there is no display.
    """
    if arguments.theme not in THEMES:
        raise unknown("theme", arguments.theme, THEMES)
    if arguments.replay and (arguments.what or arguments.train or arguments.drive):
        raise UsageError("--replay RUN shows the labels of its training: name no driver beside it")
    if len(arguments.what) > 2:
        raise UsageError(f"{len(arguments.what)} drivers: one is watched, two are compared")
    if arguments.record:
        return _film(arguments, changes)
    if arguments.train:
        return _train(arguments, changes)
    show = _Window(arguments)
    if arguments.replay:
        show.run([_queries(arguments)])
        return show.summary
    hands = Hands(dead_man=arguments.dead_man)
    names = arguments.what or [None]
    show.run([play_session(name, arguments, changes, None if k else hands) for k, name in enumerate(names)])
    return show.summary


def play_session(
    name: str | None, arguments: Namespace, changes: Mapping[str, Any], hands: Hands | None
) -> PlaySession:
    """One driver: a run folder, `expert:NAME`, a recording, or None for a person."""
    if name is None and arguments.expert and not arguments.drive:
        name = EXPERT + arguments.expert
    if name is None:
        config = load_config(None, {**changes, "expert": arguments.expert or "rule"}).driven()
        try:
            expert = expert_of(config)
        except UsageError:
            if arguments.expert:
                raise
            expert = None  # the default expert does not know this scenario
        return driven_by_hand(config, expert, hands)
    if name.startswith(EXPERT):
        return watched_expert(load_config(None, {**changes, "expert": name.removeprefix(EXPERT)}).driven(), hands)
    run = Run(name)
    if not run.config.exists():
        return ReplaySession(load_episodes(Path(name)))
    run = Run.open(name)
    config = load_config(run.config, changes)
    config = replace(config, expert=arguments.expert or config.expert).driven()
    return watched_run(run, config, expert_of(config), hands)


def _queries(arguments: Namespace) -> PlaySession:
    """The states at which the run of --replay queried its expert."""
    run = Run.open(arguments.replay)
    scenario = load_config(run.config, {}).scenario
    if not sim.get(scenario).driving:
        raise UsageError(
            f"--replay steps through traffic scenes, scenario {scenario!r} has none: watch the run instead"
        )
    return queried_in_training(run, load_config(run.config, {}))


def _train(arguments: Namespace, changes: Mapping[str, Any]) -> str:
    """Train live. The window is opened first: without one no run is started."""
    from lgdrl.visualizer.training import TrainSession

    if arguments.scripted_person:
        raise UsageError("--scripted-person presses the keys of one driver: it cannot train")
    if len(arguments.what) > 1:
        raise UsageError("--train goes on with one run: name one")
    config = _continued_config(arguments.what[0]) if arguments.what else _new_config(arguments, changes)
    check_watchable(config)
    show = _Window(arguments)
    hands = Hands(dead_man=arguments.dead_man)
    out = arguments.out or f"runs/live-{config.strategy}-{config.scenario}-{config.seed}"
    trainer = resume(arguments.what[0], hands=hands) if arguments.what else start(config, out, hands=hands)
    show.run([TrainSession(trainer)])
    folder, done = trainer.run.folder, f"{trainer.loop.progress:,} decisions"
    if trainer.run.finished:
        return f"Trained: {done}. Next: lgdrl evaluate {folder}"
    return f"Saved at {done}. Continue: lgdrl play --train {folder}"


def _continued_config(folder: str) -> RunConfig:
    """The config of a run that goes on."""
    run = Run.open(folder)
    if run.finished:
        raise UsageError(f"the run in {folder!r} is finished: there is nothing left to train")
    config = load_config(run.config, {})
    if config.num_envs != 1:
        raise UsageError(
            f"the run in {folder!r} has {config.num_envs} environments: live training shows one (num_envs=1)"
        )
    return config


def _new_config(arguments: Namespace, changes: Mapping[str, Any]) -> RunConfig:
    """The config of a run that begins."""
    named = {name: getattr(arguments, name) for name in ("expert", "steps", "strategy", "learner", "label_budget")}
    named["seed"] = None if arguments.seed == PUBLISHED else arguments.seed
    values = {**changes, "num_envs": 1, "evaluate_every": 0}
    values |= {key: value for key, value in named.items() if value is not None}
    return load_config(arguments.config, values)


class _Window:
    """The window that the arguments describe: checked and opened before anything else is made."""

    def __init__(self, arguments: Namespace) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        from lgdrl.visualizer.app import WindowOptions, open_window
        from lgdrl.visualizer.controls import keymap

        self.arguments = arguments
        self.keys = keymap(arguments.keys)
        self.options = WindowOptions(
            seed=_first_seed(arguments),
            episodes=arguments.episodes,
            save=Path(arguments.save) if arguments.save else None,
            theme=arguments.theme,
            pace=arguments.pace,
            draw_every=10 if arguments.fast else 1,
        )
        self.summary = ""
        """Printed when it has closed."""
        open_window(_size(arguments.size or "1280x720", (640, 400)))

    def run(self, sessions: list[PlaySession]) -> None:
        from lgdrl.visualizer.app import App
        from lgdrl.visualizer.clock import RealClock, VirtualClock
        from lgdrl.visualizer.scripted import ScriptedPerson

        person, name = None, self.arguments.scripted_person
        with ExitStack() as stack:
            if name:
                if not isinstance(sessions[0], DriveSession):
                    raise UsageError("--scripted-person presses the keys of a driver: a recording cannot be driven")
                env = sessions[0].env
                if not isinstance(env.action_space, spaces.Discrete):
                    raise UsageError(
                        f"--scripted-person presses the keys of meta-actions, scenario {env.scenario!r} has continuous "
                        "actions: drive yourself, or record expert:idle or expert:random"
                    )
                named = load_config(None, {"expert": name, "scenario": env.scenario})
                person = ScriptedPerson(stack.enter_context(expert_of(named)))
            clock = VirtualClock() if self.arguments.fast else RealClock()
            app = App(sessions, self.options, self.keys, clock, person)
            app.run()
        if saved := app.recorder.saved:
            self.summary = f"Saved {len(saved)} episode{'s' * (len(saved) > 1)} in {app.recorder.folder}"


def _first_seed(arguments: Namespace) -> int:
    return 0 if arguments.seed == PUBLISHED else int(arguments.seed)


def _size(text: str, least: tuple[int, int]) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--size {text!r}: give WIDTHxHEIGHT, e.g. 1280x720") from None
    if not (least[0] <= width <= 8192 and least[1] <= height <= 8192):
        raise UsageError(f"--size {text}: choose {least[0]}x{least[1]} to 8192x8192")
    return width, height


def _film(arguments: Namespace, changes: Mapping[str, Any]) -> str:
    """Drive or replay without any window and write a film."""
    from lgdrl.visualizer.film import FilmStyle, film

    if arguments.train:
        raise UsageError("--record films finished drivers: train first, or watch --train in a window")
    if len(arguments.what) > 1:
        raise UsageError("--record films one driver: name one run, expert or recording")
    check_video(arguments.record)
    size = _size(arguments.size, (320, 160)) if arguments.size else None
    style = FilmStyle(arguments.theme, size, arguments.pace)
    name = arguments.what[0] if arguments.what else EXPERT + (arguments.expert or "rule")
    session = _queries(arguments) if arguments.replay else play_session(name, arguments, changes, None)
    first, count = _first_seed(arguments), arguments.episodes or 1
    save = Path(arguments.save) if arguments.save else None
    try:
        path, outcomes = film(session, range(first, first + count), arguments.record, style, save)
    finally:
        session.close()
    return f"Film: {path} ({count} episode{'s' * (count > 1)}: {', '.join(outcomes)})"
