"""Drawing leaves the rest of the process alone."""

from __future__ import annotations

import numpy as np
from highway_envs import in_fresh_process, make_small

WINDOWS = """
import numpy as np, pygame, sim
quiet = sim.make("highway-fast-v0", "highway-env", render_mode="rgb_array", config={"vehicles_count": 2})
quiet.reset(seed=0)
assert quiet.render().std() > 1, "arrays are drawn with no display, under SDL's dummy driver too"
assert not pygame.display.get_init(), "and take none"
host = pygame.display.set_mode((50, 40))
a, b = (sim.make("highway-fast-v0", "highway-env", render_mode="human", config={"vehicles_count": 2}) for _ in range(2))
for environment in (a, b):
    environment.reset(seed=0)
window = b.inner.viewer.window
pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_a))
pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_LEFT, window=window))
a.step(1), b.step(1)
assert b.scene().ego.speed_index == a.scene().ego.speed_index, "arrow keys do not fight the policy"
assert pygame.K_a in [event.key for event in pygame.event.get(pygame.KEYDOWN)], "the host's keys stay"
a.close()
a.close()
assert pygame.get_init() or pygame.display.get_init()
assert pygame.display.get_surface() is host
host.fill((200, 0, 0))
pygame.display.flip()
b.step(1)
assert pygame.surfarray.array3d(window.get_surface()).std() > 1, "the other window is still drawn"
pygame.event.post(pygame.event.Event(pygame.WINDOWCLOSE, window=window))
b.step(1)
assert b.inner.viewer.window is None
b.step(1)
b.close()
assert pygame.display.get_surface() is host
print("alive")
"""


def test_drawing_needs_no_display_and_closing_leaves_other_windows_alive() -> None:
    display = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "SDL_VIDEODRIVER": "dummy"}
    assert in_fresh_process(WINDOWS, environment=display).split()[-1] == "alive"


def test_overlay_belongs_to_one_environment() -> None:
    plain, marked = (make_small("highway-fast-v0", render_mode="rgb_array") for _ in range(2))
    marked.overlay = lambda surface: surface.fill((255, 0, 255))
    frames = []
    for env in (plain, marked):
        env.reset(seed=0)
        frames.append(env.render())
    magenta = (frames[1] == (255, 0, 255)).all(axis=-1).mean()
    assert magenta > 0.5
    assert not (frames[0] == (255, 0, 255)).all(axis=-1).any()


def test_frames_do_not_change_afterwards() -> None:
    env = make_small("highway-fast-v0", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    kept = frame.copy()
    env.step(1)
    env.render()
    assert np.array_equal(frame, kept)
