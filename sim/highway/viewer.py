"""Drawing of highway-env environments that leaves the rest of the process alone.

highway-env's own viewer quits pygame for the whole process, stores its overlay on the class, takes all events of the
process, lets arrow keys interfere with the policy and draws nothing under SDL's dummy driver. This one has a surface or
window of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pygame
from highway_env.envs.common.graphics import EnvViewer, EventHandler, ObservationGraphics
from highway_env.road.graphics import RoadGraphics, WorldSurface

from sim.errors import UsageError

WINDOW_EVENTS = (pygame.WINDOWCLOSE, pygame.KEYDOWN, pygame.KEYUP)

Overlay = Callable[[WorldSurface], None]
"""Draws onto the finished road before traffic; `surface.vec2pix` turns world metres into pixels."""


class Viewer(EnvViewer):
    """Draws one environment, to an array or to a window of its own."""

    def __init__(self, inner: Any, window: bool) -> None:
        # Not super().__init__(): it takes over the process's display.
        self.env, self.config, self.offscreen = inner, inner.config, not window
        self.observer_vehicle = self.agent_surface = self.vehicle_trajectory = None
        self.overlay: Overlay | None = None
        self.frame, self.directory, self.enabled = 0, None, True
        size = (self.config["screen_width"], self.config["screen_height"])
        pygame.font.init()
        self.clock = pygame.time.Clock()
        self.sim_surface = WorldSurface(size, 0, pygame.Surface(size))
        self.sim_surface.scaling = self.config["scaling"]
        self.sim_surface.centering_position = list(self.config["centering_position"])
        self.window: pygame.Window | None = self._open(size) if window else None

    @staticmethod
    def _open(size: tuple[int, int]) -> pygame.Window:
        try:
            pygame.display.init()
            return pygame.Window("highway-env", size)
        except pygame.error as error:
            raise UsageError(
                f"render_mode 'human' cannot open a window ({error}): use render_mode 'rgb_array'"
            ) from None

    def set_agent_display(self, agent_display: Overlay) -> None:
        """The overlay of this viewer only."""
        self.overlay = agent_display

    def display(self) -> None:
        """Draw the present state, and show it where there is a window."""
        surface, road = self.sim_surface, self.env.road
        surface.move_display_window_to(self.window_position())
        RoadGraphics.display(road, surface)
        RoadGraphics.display_road_objects(road, surface, offscreen=True)
        if self.overlay is not None:
            self.overlay(surface)
        RoadGraphics.display_traffic(
            road, surface, simulation_frequency=self.env.config["simulation_frequency"], offscreen=True
        )
        ObservationGraphics.display(self.env.observation_type, surface)
        if self.window is not None:
            self.window.get_surface().blit(surface, (0, 0))
            self.window.flip()
            if self.env.config["real_time_rendering"]:
                self.clock.tick(self.env.config["simulation_frequency"])

    def get_image(self) -> np.ndarray:
        """uint8 (height, width, 3), a fresh array."""
        return np.ascontiguousarray(pygame.surfarray.array3d(self.sim_surface).swapaxes(0, 1))

    def handle_events(self) -> None:
        """React to the events of this window; the others stay in the queue."""
        if self.window is None:
            return
        for event in pygame.event.get(WINDOW_EVENTS, pump=True):
            if getattr(event, "window", None) is not self.window:
                pygame.event.post(event)
            elif event.type == pygame.WINDOWCLOSE:
                self.close()
                return
            else:
                self.sim_surface.handle_event(event)
                if self.env.config["manual_control"]:
                    self._drive(event)

    def _drive(self, event: Any) -> None:
        """Arrow keys, for environments that are driven by hand."""
        actions = self.env.action_type
        if event.type == pygame.KEYDOWN and event.key == pygame.K_UP and not getattr(actions, "lateral", True):
            return  # highway-env looks LANE_LEFT up without checking that it exists
        EventHandler.handle_event(actions, event)

    def close(self) -> None:
        """Close this window; pygame and every other window stay open."""
        if self.window is not None:
            self.window.destroy()
            self.window = None
