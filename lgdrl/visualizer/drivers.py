"""Sessions made from a configuration: a trained run, an expert or a person as the driver, or the log of a training."""

from __future__ import annotations

import experts.registry
import sim
from experts.driving import NEEDS
from experts.human import Hands
from experts.provider import PolicyProvider, check_needs
from experts.spaces import check_spaces
from lgdrl.config import RunConfig
from lgdrl.guidance.log import LoggedEpisodes
from lgdrl.loops.online import load_policy
from lgdrl.runs import Run
from lgdrl.visualizer.session import DriveSession, ReplaySession
from lgdrl.visualizer.stage import Stage
from sim.env import ScenarioEnv
from sim.errors import UsageError
from sim.picture import MODE


def watched_run(
    run: Run, config: RunConfig, expert: PolicyProvider | None = None, hands: Hands | None = None
) -> DriveSession:
    """A session that the trained policy of a finished run drives.

    Args:
        run: Finished.
        config: Names the environment.
        expert: Labels every state, for the panel.
        hands: Of the person who may take over.
    """
    learner, title = load_policy(run), f"{config.strategy} · {run.folder.name}"
    env = _environment(config)
    check_spaces(f"the policy of {str(run.folder)!r}", learner, env, config.scenario)
    return DriveSession(env, learner, expert, "learner", hands, title, config.shield)


def queried_in_training(run: Run, config: RunConfig) -> ReplaySession:
    """A session that replays the states at which a run queried its expert, as its guidance log has them.

    Args:
        run: Its log was written with `log_scenes=1`.
        config: Of the run.
    """
    where = str(config.scenario), str(config.backend), dict(config.scenario_config)
    return ReplaySession(LoggedEpisodes(run.guidance_log, run.folder.name, *where), config.expert)


def watched_expert(config: RunConfig, hands: Hands | None = None) -> DriveSession:
    """A session that the expert of `config` drives; `hands` may take over."""
    return DriveSession(_environment(config), None, expert_of(config), "expert", hands, f"Expert {config.expert}")


def driven_by_hand(config: RunConfig, expert: PolicyProvider | None, hands: Hands | None) -> DriveSession:
    """A session that a person drives; `expert` labels every state, for the panel."""
    return DriveSession(_environment(config), None, expert, "human", hands, "You")


def expert_of(config: RunConfig) -> PolicyProvider:
    """The expert that a config names.

    Raises:
        UsageError: It cannot drive there.
    """
    found = experts.registry.make(config.expert, config.scenario, config.expert_options, config.seed)
    try:
        check_needs(found, NEEDS if sim.get(config.scenario).driving else frozenset(), config.scenario)
    except UsageError:
        found.close()
        raise
    return found


def check_watchable(config: RunConfig) -> None:
    """UsageError unless the environment of a run can be shown; it draws one picture where it has no scenes."""
    if sim.get(config.scenario).driving:
        return
    env = _environment(config.driven())
    try:
        env.reset(seed=0)
        Stage(env).look(0, env.action_masks())
    finally:
        env.close()


def _environment(config: RunConfig) -> ScenarioEnv:
    """The environment to watch: one with scenes, or one that draws its own pictures."""
    if sim.get(config.scenario).driving:
        return sim.make_driving(config.scenario, config.backend, config.scenario_config)
    return sim.make(config.scenario, config.backend, config.scenario_config, render_mode=MODE)
