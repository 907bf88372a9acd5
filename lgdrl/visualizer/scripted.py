"""A scripted person: presses the keys of what an expert decides.

It acts by input events alone, so everything between a key and the recording is exercised as by a person.
"""

from __future__ import annotations

import numpy as np
import pygame

from experts.provider import PolicyProvider
from lgdrl.visualizer.app import App
from lgdrl.visualizer.clock import FPS
from lgdrl.visualizer.controls import DRIVING, Command
from lgdrl.visualizer.session import DriveSession
from sim.actions import MetaAction
from sim.picture import Picture, keys_of

COMMANDS = {held.manoeuvre: command for command, held in DRIVING.items()}


class ScriptedPerson:
    """Taps a key once per decision.

    Args:
        expert: Decides which one.
        reaction_s: Seconds (at pace 1) from a new scene to the key.
    """

    def __init__(self, expert: PolicyProvider, reaction_s: float = 0.15) -> None:
        self.expert, self.reaction_s = expert, reaction_s
        self._seen: tuple[int, int] | None = None
        self._due: float | None = None
        self._held: list[int] = []

    def __call__(self, app: App) -> None:
        for held in self._held:
            post_key(held, down=False)
        self._held = []
        session = app.panes[0].session
        if not isinstance(session, DriveSession) or session.track.outcome:
            return
        decision = (app.episodes, len(session.track))
        if decision != self._seen:
            self._seen, self._due = decision, app.clock.now() + self.reaction_s / app.playback.pace
        if self._due is not None and app.clock.now() + 1 / FPS > self._due:
            self._due = None
            key = self._key(app, session)
            if key is not None:
                post_key(key)
                self._held.append(key)

    def _key(self, app: App, session: DriveSession) -> int | None:
        assessment = session.track.last
        assert assessment is not None
        action = self.expert.decide([session.context(assessment, branch=True)])[0].action
        if action is None or isinstance(action, np.ndarray):
            return None
        shown = assessment.scene
        meaning = keys_of(shown.names)[action] if isinstance(shown, Picture) else shown.meanings[action]
        if meaning is None:
            return None  # no key chooses it
        command: Command = COMMANDS[meaning]
        if command is COMMANDS[MetaAction.IDLE] and app.hands is not None and app.hands.engaged:
            return None  # pressing nothing keeps speed and lane
        return next(code for code, each in app.keys.keys.items() if each is command)


def post_key(key: int, down: bool = True, unicode: str = "") -> None:
    """Post a key event as the keyboard makes it.

    Args:
        key: SDL key code.
        down: Pressed, or released.
        unicode: The text that the key types.
    """
    kind = pygame.KEYDOWN if down else pygame.KEYUP
    pygame.event.post(pygame.Event(kind, key=key, mod=0, unicode=unicode, scancode=0))
