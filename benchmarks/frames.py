"""What a frame of a fluent picture costs in CPU time, interpolated and drawn at 1280 x 720, and whether memory grows.

    python benchmarks/frames.py [--frames 2000] [--json FILE]

Two decisions are joined by frames at 60 Hz of simulated time, as a window shows them. CPU time of this process, so that
other work on the machine matters little; the first second is left out of the times and given on its own, because
programs and pictures are loaded then.
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
from sim.files import write_atomically
from sim.render import SceneRenderer, interpolate
from sim.scene import Scene

SIZE = (1280, 720)
FPS = 60
WARM_UP = 60
IDLE = 1
WORLDS: dict[str, tuple[str, dict]] = {
    "highway, 50 vehicles": ("highway-v0", {"vehicles_count": 50, "vehicles_density": 2}),
    "lane-change": ("lane-change", {}),
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
            _, _, terminated, truncated, _ = env.step(IDLE)
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


def measure(track: list[Scene], frames: int) -> dict[str, float]:
    """CPU milliseconds per frame over `frames` frames after the warm-up, and memory around them."""
    renderer = SceneRenderer(size=SIZE)
    cost = np.zeros(frames + WARM_UP)
    count, before = 0, resident()
    warm = half = before
    while count < len(cost):  # a short track is shown again
        for a, b in itertools.pairwise(track):
            steps = max(round((b.time - a.time) * FPS), 1)
            for step in range(steps):
                if count == len(cost):
                    break
                if count == WARM_UP:
                    warm = resident()
                if count == WARM_UP + frames // 2:
                    half = resident()
                start = time.process_time()
                renderer.draw_surface(interpolate(a, b, step / steps))
                cost[count] = 1e3 * (time.process_time() - start)
                count += 1
    gc.collect()
    steady = cost[WARM_UP:]
    return {
        "frames": frames,
        "median_ms": float(np.median(steady)),
        "p99_ms": float(np.percentile(steady, 99)),
        "max_ms": float(steady.max()),
        "first_ms": float(cost[0]),
        "first_second_max_ms": float(cost[1:WARM_UP].max()),
        "rss_before_mib": before,
        "rss_warm_mib": warm,
        "rss_half_mib": half,
        "rss_after_mib": resident(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="frames per world, at least 1 (default: 2000)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    if options.frames < 1:
        parser.error("--frames: at least 1")
    found = {}
    for title, (name, config) in WORLDS.items():
        row = found[title] = measure(scenes(name, config, min(options.frames, 2000)), options.frames)
        print(
            f"{title:22} median {row['median_ms']:5.2f} ms  p99 {row['p99_ms']:5.2f}  max {row['max_ms']:5.2f}  "
            f"(first frame {row['first_ms']:.1f}, first second up to {row['first_second_max_ms']:.1f})  "
            f"RSS {row['rss_before_mib']:.1f} MiB, {row['rss_warm_mib']:.1f} warm, {row['rss_half_mib']:.1f} half way, "
            f"{row['rss_after_mib']:.1f} after"
        )
    if options.json is not None:
        text = json.dumps(found, indent=2) + "\n"
        write_atomically(options.json, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
