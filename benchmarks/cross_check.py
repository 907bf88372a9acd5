"""Our profiler beside GuideLLM, on one real server with the same requests.

    python benchmarks/cross_check.py --guidellm PATH [--model driver] [--requests 100] [--rounds 3] [--rate 0]

PATH is the `guidellm` of an environment of its own (`pip install guidellm`). The server is `lgdrl serve-lm`, the
requests are driving scenes, none of them twice, asked one after the other or at a constant rate; the two tools take
turns. Both see streams, so that the time to the first text, the times between texts and the whole of a request can be
compared; ours leave out what only we do (prompt and judgement).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experts import registry
from experts.llm.ladder import Rung, request
from experts.llm.provider import LLMExpert
from lgdrl.profiler.load import LoadConfig, run_load
from lgdrl.profiler.scenes import Asked, stream
from lgdrl.runs import fingerprint_environment

SCENARIO = "lane-change"
WARM_UP = 3
FIRST, BETWEEN, WHOLE = "first text", "between texts", "whole"
FIGURES = {FIRST: "time_to_first_token_ms", BETWEEN: "inter_token_latency_ms", WHOLE: "request_latency"}
"""Ours, and what GuideLLM calls it."""
SCALE = {"request_latency": 1e3}
Sample = dict[str, list[float]]


def ours(expert: LLMExpert, load: LoadConfig, questions: Sequence[Asked]) -> Sample:
    """Milliseconds by figure, one per request."""
    rows = run_load(expert, load, questions, 1.0, np.random.default_rng(0)).rows
    found: Sample = {name: [] for name in FIGURES}
    for row in rows[WARM_UP:]:
        line = row.timeline
        if line is None or line.sent is None or line.first_token is None or line.done is None:
            raise SystemExit(f"a request failed: {row.status}, {row.faults}")
        found[FIRST].append(1e3 * (line.first_token - line.sent))
        found[WHOLE].append(1e3 * (line.heard[-1][0] - line.sent))
        tokens = line.output_tokens or len(line.heard)
        if tokens > 1:
            found[BETWEEN].append(1e3 * (line.heard[-1][0] - line.first_token) / (tokens - 1))
    return found


def theirs(tool: str, url: str, model: str, load: LoadConfig, bodies: Sequence[dict[str, Any]], folder: Path) -> Sample:
    """The same of GuideLLM, from its report."""
    data, report = folder / "requests.json", folder / "report.json"
    data.write_text(json.dumps([{"messages": body.pop("messages")} for body in bodies]))
    backend = {
        "kind": "openai_http",
        "target": url,
        "model": model,
        "validate_backend": False,
        "request_format": "/v1/chat/completions",
        "extras": {"body": bodies[0]},
        "http2": False,
    }
    profile = {"kind": "synchronous"} if load.kind == "closed" else {"kind": "constant", "rate": [load.rate]}
    words = ["run", "--backend", json.dumps(backend), "--profile", json.dumps(profile)]
    words += ["--data", json.dumps({"kind": "json_file", "path": str(data)})]
    words += ["--constraint", json.dumps({"kind": "max_requests", "count": len(bodies)})]
    words += ["--output", json.dumps({"kind": "json", "path": str(report)}), "--disable-console"]
    done = subprocess.run([tool, *words], capture_output=True, text=True, check=False)
    if done.returncode or not report.exists():
        raise SystemExit(f"guidellm failed:\n{(done.stderr or done.stdout)[-2000:]}")
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    requests = sorted(benchmark["requests"]["successful"], key=lambda one: one["request_start_time"])[WARM_UP:]
    return {
        name: [SCALE.get(key, 1.0) * one[key] for one in requests if one[key] is not None]
        for name, key in FIGURES.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--guidellm", required=True)
    parser.add_argument("--model", default="driver", help="as of `lgdrl serve-lm`")
    parser.add_argument("--requests", type=int, default=100, help="of each tool and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.0, help="per second; 0: one after the other")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    load = LoadConfig(kind="constant", rate=arguments.rate) if arguments.rate else LoadConfig()
    command = [sys.executable, "-m", "lgdrl.cli", "serve-lm", "--model", arguments.model, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        line = next(line for line in server.stdout if line.startswith("serving"))
        model, url = line.split()[1], next(word for word in line.split() if word.startswith("http"))
        samples = measure(arguments, load, model, url)
    finally:
        server.terminate()
        server.wait()
    show(samples)
    if arguments.json:
        found = {"environment": fingerprint_environment(), "arguments": vars(arguments), "milliseconds": samples}
        Path(arguments.json).write_text(json.dumps(found))


def measure(arguments: argparse.Namespace, load: LoadConfig, model: str, url: str) -> dict[str, Sample]:
    """Both tools in turns, and their samples together."""
    each = arguments.requests + WARM_UP
    questions = stream(SCENARIO, 2 * arguments.rounds * each)
    options = {
        "model": model,
        "rung": "text",
        "stream": "always",
        "repair": False,
        "prompt": {"reasoning": "short", "ask_probs": False},
        "sampling": {"max_tokens": arguments.max_tokens},
        "client": {"base_url": url},
    }
    samples: dict[str, Sample] = {tool: {name: [] for name in FIGURES} for tool in ("lgdrl", "guidellm")}
    with registry.make("llm", SCENARIO, options, 0) as expert, tempfile.TemporaryDirectory() as folder:  # type: ignore[attr-defined]
        for turn in range(2 * arguments.rounds):
            part = questions[turn * each : (turn + 1) * each]
            tool = ("lgdrl", "guidellm")[turn % 2]
            if tool == "lgdrl":
                found = ours(expert, load, part)
            else:
                bodies = [body(expert, asked) for asked in part]
                found = theirs(arguments.guidellm, url, model, load, bodies, Path(folder))
            for name, values in found.items():
                samples[tool][name] += values
            print(f"round {turn // 2 + 1}, {tool}: {len(found['whole'])} requests")
    return samples


def body(expert: LLMExpert, asked: Asked) -> dict[str, Any]:
    """The request that our expert would send about a scene."""
    assert asked.context.scene is not None
    prompt = expert.generator.build(asked.context.scene, Rung.TEXT.form, asked.context.legal)
    config = expert.config
    return request(Rung.TEXT, prompt, config.prompt, config.sampling, choice=False)


def show(samples: dict[str, Sample]) -> None:
    print(f"{'ms':15}{'tool':10}{'n':>6}{'mean':>9}{'p50':>9}{'p90':>9}{'p95':>9}")
    for name in FIGURES:
        for tool, sample in samples.items():
            values = sample[name]
            if values:
                figures = [float(np.mean(values)), *np.percentile(values, [50, 90, 95]).tolist()]
                print(f"{name:15}{tool:10}{len(values):6}" + "".join(f"{value:9.2f}" for value in figures))


if __name__ == "__main__":
    main()
