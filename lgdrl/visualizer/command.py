"""What `lgdrl play` shows, from what was asked for: sessions, options, and the window or the film."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import experts.registry
import sim
from experts.episodes import Controller, load_episodes, save_episode
from experts.human import Hands
from experts.provider import PolicyProvider
from lgdrl.runs import Run
from lgdrl.sac import DiscreteSAC
from lgdrl.training import RunConfig, load_config, load_policy, resume, start
from lgdrl.visualizer.session import DriveSession, ReplaySession, Session, Track
from sim.config import deep_merge, parse_overrides
from sim.errors import UsageError, unknown
from sim.render import THEMES

EXPERT = "expert:"
PUBLISHED = "published"


def play(arguments: Namespace) -> str:
    """Run `lgdrl play`. Returns what to tell the user at the end."""
    if arguments.theme not in THEMES:
        raise unknown("theme", arguments.theme, THEMES)
    if len(arguments.what) > 2:
        raise UsageError(f"{len(arguments.what)} drivers: one is watched, two are compared")
    hands = Hands(dead_man=arguments.dead_man)
    if arguments.record:
        return _film(arguments)
    if arguments.train:
        return _train(arguments, hands)
    sessions = [_session(name, arguments, hands) for name in arguments.what or [None]]
    live = any(session.live for session in sessions)
    _window(arguments, sessions, hands if live else None)
    return ""


def _session(name: str | None, arguments: Namespace, hands: Hands | None) -> Session:
    """One driver: a run folder, `expert:NAME`, a recording, or None for a person."""
    if name is None and arguments.expert and not arguments.drive:
        name = EXPERT + arguments.expert
    if name is not None and not name.startswith(EXPERT) and not Run(name).config.exists():
        return ReplaySession(load_episodes(Path(name)), name)
    learner: DiscreteSAC | None = None
    autopilot: Controller = "human"
    changes = _changes(arguments)
    if name is None:
        config, title = load_config(None, changes), "You"
        expert = arguments.expert or "rule"
    elif name.startswith(EXPERT):
        config, expert, autopilot = load_config(None, changes), name.removeprefix(EXPERT), "expert"
        title = f"Expert {expert}"
    else:
        run = Run.open(name)
        config, learner, autopilot = load_config(run.config, changes), load_policy(run), "learner"
        expert, title = arguments.expert or config.expert, f"{config.strategy} · {Path(name).name}"
    config = replace(config, expert=expert).resolved()
    world = sim.make(config.scenario, config.backend, config.scenario_config)
    return DriveSession(world, learner, _expert(config, arguments), autopilot, hands, title)


def _changes(arguments: Namespace) -> dict[str, Any]:
    """Config changes that the command line asks for."""
    changes = parse_overrides(arguments.overrides)
    for name in ("scenario", "backend"):
        if getattr(arguments, name) is not None:
            changes[name] = getattr(arguments, name)
    if arguments.seed == PUBLISHED:
        changes = deep_merge(changes, {"scenario_config": {"layout": PUBLISHED}})
    return changes


def _expert(config: RunConfig, arguments: Namespace) -> PolicyProvider | None:
    """The expert beside (or at) the wheel; none where it was only a default and cannot drive this world."""
    if config.expert in ("none", "human"):
        return None
    try:
        return experts.registry.make(config.expert, config.scenario, config.expert_options, config.seed)
    except UsageError:
        if arguments.expert or arguments.what:
            raise
        return None


def _first_seed(arguments: Namespace) -> int:
    return 0 if arguments.seed == PUBLISHED else int(arguments.seed)


def _train(arguments: Namespace, hands: Hands) -> str:
    """Train live."""
    from lgdrl.visualizer.training import TrainSession

    if arguments.what:
        run = Run.open(arguments.what[0])
        if run.finished:
            raise UsageError(f"the run in {str(run.folder)!r} is finished: there is nothing left to train")
        trainer = resume(arguments.what[0])
        if trainer.config.num_envs != 1:
            trainer.close()
            raise UsageError(f"the run has {trainer.config.num_envs} worlds: live training shows one (num_envs=1)")
    else:
        changes = _changes(arguments) | {"num_envs": 1, "evaluate_every": 0}
        named = {"expert": arguments.expert, "steps": arguments.steps, "strategy": arguments.strategy}
        changes |= {key: value for key, value in named.items() if value is not None}
        if arguments.seed != PUBLISHED:
            changes["seed"] = arguments.seed
        config = load_config(arguments.config, changes)
        trainer = start(config, arguments.out or f"runs/live-{config.strategy}-{config.scenario}-{config.seed}")
    folder = trainer.run.folder
    _window(arguments, [TrainSession(trainer, hands)], hands)
    return f"Saved at {trainer.decisions:,} decisions. Continue: lgdrl play --train {folder}"


def _window(arguments: Namespace, sessions: list[Session], hands: Hands | None) -> None:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from lgdrl.visualizer.app import App, Options, RealClock, VirtualClock
    from lgdrl.visualizer.controls import keymap
    from lgdrl.visualizer.puppet import Puppet

    options = Options(
        seed=_first_seed(arguments),
        episodes=arguments.episodes,
        record=Path(arguments.save) if arguments.save else None,
        theme=arguments.theme,
        size=_size(arguments.size),
        pace=arguments.pace,
        draw_every=10 if arguments.fast else 1,
    )
    puppet = None
    if arguments.puppet:
        if not isinstance(sessions[0], DriveSession):
            raise UsageError("--puppet presses the keys of a driver: there is nobody to drive here")
        puppet = Puppet(experts.registry.make(arguments.puppet, sessions[0].world.scenario))
    clock = VirtualClock() if arguments.fast else RealClock()
    App(sessions, options, keymap(arguments.keys), hands, clock, puppet).run()


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--size {text!r}: give WIDTHxHEIGHT, e.g. 1280x720") from None
    if not (640 <= width <= 8192 and 400 <= height <= 8192):
        raise UsageError(f"--size {text}: choose 640x400 to 8192x8192")
    return width, height


def _film(arguments: Namespace) -> str:
    """Drive or replay without any window and write a film."""
    from lgdrl.visualizer.film import write_film

    if arguments.train:
        raise UsageError("--record films finished drivers: train first, or watch --train in a window")
    if len(arguments.what) > 1:
        raise UsageError("--record films one driver: name one run, expert or recording")
    name = arguments.what[0] if arguments.what else None
    session = _session(name or EXPERT + (arguments.expert or "rule"), arguments, None)
    first, count = _first_seed(arguments), arguments.episodes or 1
    tracks: list[Track] = []
    for seed in range(first, first + count):
        session.begin(seed)
        while session.live and not session.track.outcome:
            session.think()
            session.act()
        tracks.append(session.track)
        if arguments.save and isinstance(session, DriveSession):
            save_episode(Path(arguments.save) / f"episode-{len(tracks):04d}-seed-{seed}.npz", session.episode())
    session.close()
    path = write_film(Path(arguments.record), tracks, arguments.theme)
    ends = ", ".join(track.outcome for track in tracks)
    return f"Film: {path} ({len(tracks)} episode{'s' * (len(tracks) > 1)}: {ends})"
