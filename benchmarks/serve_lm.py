"""What a decision of the embedded driver costs: by itself, as an expert in process, and behind the server.

    python benchmarks/serve_lm.py [--model FILE.safetensors] [--seconds 5] [--json FILE]

One torch thread throughout. Latencies are per call of the asker; the server is a process of its own, its clients are
coroutines of the real openai package in this one, so that on few cores the two compete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import openai
import torch

import sim
from experts import registry
from experts.language.driver import BATCH, Driver
from experts.language.driving_language import Picture
from experts.language_model import EMBEDDED_PROMPT
from experts.llm.ladder import Rung, SamplingConfig, request
from experts.llm.prompt import PromptGenerator
from experts.provider import Context
from lgdrl.runs import fingerprint_environment
from sim.scene import Scene

CLIENTS = (1, 8, 64)


def row(what: str, together: int, seconds: list[float], wall: float) -> dict[str, Any]:
    """One line of the table: latencies of calls that each decide `together` scenes, and decisions per s."""
    p50, p99 = (1000 * float(np.percentile(seconds, q)) for q in (50, 99))
    rate = len(seconds) * together / wall
    return {"what": what, "together": together, "calls": len(seconds), "p50_ms": p50, "p99_ms": p99, "per_s": rate}


def timed(what: str, together: int, call: Callable[[], object], limit: float) -> dict[str, Any]:
    """Call for so many seconds, at least three times, after one that warms up."""
    call()
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - begin < limit:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return row(what, together, taken, time.perf_counter() - begin)


def scenes(count: int) -> list[Scene]:
    """Scenes of the lane change, met while driving at random."""
    env, rng = sim.make("lane-change"), np.random.default_rng(0)
    found: list[Scene] = []
    env.reset(seed=0)
    while len(found) < count:
        found.append(env.scene())
        _, _, terminated, truncated, _ = env.step(int(rng.choice(np.flatnonzero(env.action_masks()))))
        if terminated or truncated:
            env.reset()
    env.close()
    return found


def in_process(model: Path | None, met: list[Scene], limit: float) -> list[dict[str, Any]]:
    """The driver, and the expert around it."""
    driver = Driver.load(model)
    pictures = [Picture.of(scene) for scene in met]
    print(f"{driver.name}: {driver.parameter_count:,} parameters, {pictures[0].prompt()!r}")
    rows = [timed("driver", n, lambda n=n: driver.think(pictures[:n]), limit) for n in (1, BATCH)]  # type: ignore[misc]
    options = {"fallback": "none"} | ({} if model is None else {"model": str(model)})
    expert: Any = registry.make("llm", "lane-change", options)
    space = gym.spaces.Discrete(len(met[0].legal))
    contexts = [Context(np.zeros(1), space, scene, scene.legal) for scene in met]
    for n in (1, BATCH):
        rows.append(timed("expert in process", n, lambda n=n: expert.decide(contexts[:n]), limit))  # type: ignore[misc]
    expert.close()
    return rows


def served(model: Path | None, met: list[Scene], limit: float) -> list[dict[str, Any]]:
    """The server under several clients."""
    command = [sys.executable, "-m", "lgdrl.cli", "serve-lm", "--port", "0"]
    command += [] if model is None else ["--model", str(model)]
    generator = PromptGenerator(EMBEDDED_PROMPT)
    prompts = [generator.build(scene, "json") for scene in met]
    asked = [request(Rung.JSON_SCHEMA, prompt, EMBEDDED_PROMPT, SamplingConfig(), False) for prompt in prompts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], 120.0)[0]:
                raise SystemExit("the server did not start within 120 s")
            url = process.stdout.readline().split(" at ")[1].split()[0]
            return [asyncio.run(_ask(url, asked, clients, limit)) for clients in CLIENTS]
        finally:
            process.send_signal(signal.SIGTERM)


async def _ask(url: str, asked: list[dict[str, Any]], clients: int, limit: float) -> dict[str, Any]:
    """So many clients, each of which asks its next question when it has its answer."""
    taken: list[float] = []

    async def one(number: int, client: openai.AsyncOpenAI, until: float) -> None:
        while time.perf_counter() < until:
            start = time.perf_counter()
            await client.chat.completions.create(model="", **asked[number % len(asked)])
            taken.append(time.perf_counter() - start)
            number += clients

    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=60.0) as client:
        await asyncio.gather(
            *(client.chat.completions.create(model="", **asked[k % len(asked)]) for k in range(clients))
        )
        begin = time.perf_counter()
        await asyncio.gather(*(one(k, client, begin + limit) for k in range(clients)))
        return row(f"server, {clients} clients", 1, taken, time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a .safetensors file (default: the driver that is shipped)")
    parser.add_argument("--seconds", type=float, default=5.0, help="per line of the table (default: 5)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        os.environ.pop(name, None)
    met = scenes(BATCH)
    rows = in_process(arguments.model, met, arguments.seconds) + served(arguments.model, met, arguments.seconds)
    print(f"{'':20} {'together':>8} {'calls':>6} {'p50 ms':>8} {'p99 ms':>8} {'decisions/s':>12}")
    for line in rows:
        print(
            f"{line['what']:20} {line['together']:8} {line['calls']:6} {line['p50_ms']:8.1f} {line['p99_ms']:8.1f} "
            f"{line['per_s']:12.1f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "machine": fingerprint_environment()}, indent=2))


if __name__ == "__main__":
    main()
