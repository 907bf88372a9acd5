"""What a frame costs: the picture of the road alone, and the whole window as a person sees it; whether memory grows.

    python benchmarks/frames.py [--frames 2000] [--worlds highway-50] [--json FILE]

Everything at 1280 x 720, drawn in software (a display that shows nothing; a real one adds the time to show a picture).
Two decisions are joined by frames at 60 Hz of simulated time.

- picture: CPU time of interpolating and drawing a scene. Other work on the machine matters little.
- window: time on the wall between two waits for the next frame, with the rule driving, panel and timeline drawn, and
  world and expert at work in their threads. Run it on an idle machine.

The first second is left out of the times and given on its own: programs and pictures are loaded then.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import time
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np

import sim
from experts import registry
from lgdrl.visualizer.app import App, WindowOptions, open_window
from lgdrl.visualizer.clock import RealClock
from lgdrl.visualizer.controls import keymap
from lgdrl.visualizer.session import DriveSession
from sim.files import write_atomically
from sim.render import SceneRenderer, interpolate
from sim.scene import Scene

SIZE = (1280, 720)
FPS = 60
WARM_UP = 60
IDLE = 1
WORLDS: dict[str, tuple[str, dict]] = {
    "highway-50": ("highway-v0", {"vehicles_count": 50, "vehicles_density": 2}),
    "lane-change": ("lane-change", {}),
    "intersection": ("intersection-v0", {}),
    "roundabout": ("roundabout-v0", {}),
}


def scenes(name: str, config: dict, frames: int) -> list[Scene]:
    """Scenes of an idle driver, episode after episode, that last so many frames."""
    env = sim.make(name, config=config)
    seed, made, missing = 0, [], float(frames + WARM_UP)
    while missing > 0:
        env.reset(seed=seed)
        seed += 1
        made.append(env.scene())
        done = False
        while not done and missing > 0:
            _, _, terminated, truncated, _ = env.step(min(IDLE, env.action_space.n - 1))
            made.append(env.scene())
            missing -= made[-1].decision_period * FPS
            done = terminated or truncated
    env.close()
    return made


def resident() -> float:
    """MiB of memory that this process holds; NaN where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Record:
    """Milliseconds per frame, warm-up included, and memory on the way."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.cost: list[float] = []
        self._memory = {"before": resident()}

    @property
    def full(self) -> bool:
        return len(self.cost) == self.frames + WARM_UP

    def add(self, seconds: float) -> None:
        self.cost.append(1e3 * seconds)
        moments = {WARM_UP: "warm", WARM_UP + self.frames // 2: "half", WARM_UP + self.frames: "after"}
        if len(self.cost) in moments:
            gc.collect()
            self._memory[moments[len(self.cost)]] = resident()

    def summary(self) -> dict[str, float]:
        steady = np.array(self.cost[WARM_UP:])
        return {
            "frames": self.frames,
            "median_ms": float(np.median(steady)),
            "p99_ms": float(np.percentile(steady, 99)),
            "max_ms": float(steady.max()),
            "first_ms": self.cost[0],
            "first_second_max_ms": max(self.cost[1:WARM_UP]),
            **{f"rss_{moment}_mib": value for moment, value in self._memory.items()},
        }


def pictures(name: str, config: dict, frames: int) -> Record:
    """CPU time of every picture; a short track is shown again."""
    track, record = scenes(name, config, min(frames, 2000)), Record(frames)
    renderer = SceneRenderer(size=SIZE)
    while not record.full:
        for a, b in itertools.pairwise(track):
            steps = max(round((b.time - a.time) * FPS), 1)
            for step in range(steps):
                if record.full:
                    break
                start = time.process_time()
                renderer.draw_surface(interpolate(a, b, step / steps))
                record.add(time.process_time() - start)
    renderer.close()
    return record


class Stopwatch(RealClock):
    """The time on the wall, and how much of it was spent waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0

    def tick(self) -> float:
        begin = time.perf_counter()
        passed = super().tick()
        self.waited += time.perf_counter() - begin
        return passed


def window(name: str, config: dict, frames: int) -> Record:
    """Time of every frame of a window in which the rule drives one episode after the other."""
    open_window(SIZE)
    session = DriveSession(sim.make(name, config=config), None, registry.make("rule", name), "expert", None, name)
    clock, record = Stopwatch(), Record(frames)
    app = App([session], WindowOptions(), keymap(), clock)
    try:
        while not record.full:
            waited, begin = clock.waited, time.perf_counter()
            app.frame()
            record.add(time.perf_counter() - begin - (clock.waited - waited))
    finally:
        app.close()
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="frames per world, at least 1 (default: 2000)")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="comma-separated (default: all)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    if options.frames < 1:
        parser.error("--frames: at least 1")
    wanted = options.worlds.split(",")
    if not set(wanted) <= set(WORLDS):
        parser.error(f"--worlds: choose from {', '.join(WORLDS)}")
    found: dict[str, dict] = {}
    for title in wanted:
        name, config = WORLDS[title]
        for kind, measure in (("picture", pictures), ("window", window)):
            row = found.setdefault(title, {})[kind] = measure(name, config, options.frames).summary()
            print(
                f"{title:12} {kind:8} median {row['median_ms']:5.2f} ms  p99 {row['p99_ms']:5.2f}  "
                f"max {row['max_ms']:5.2f}  (first frame {row['first_ms']:.1f}, first second up to "
                f"{row['first_second_max_ms']:.1f})  RSS {row['rss_before_mib']:.1f} MiB, {row['rss_warm_mib']:.1f} "
                f"warm, {row['rss_half_mib']:.1f} half way, {row['rss_after_mib']:.1f} after",
                flush=True,
            )
    if options.json is not None:
        text = json.dumps(found, indent=2) + "\n"
        write_atomically(options.json, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
