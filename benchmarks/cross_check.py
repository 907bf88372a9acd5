"""Our profiler beside GuideLLM, on one real server with the same requests.

    python benchmarks/cross_check.py --guidellm PATH [--model driver] [--requests 100] [--rounds 3] [--rate 0]

PATH is the `guidellm` of an environment of its own (`pip install guidellm`). The server is `lgdrl serve-lm`, the
requests are driving scenes, asked one after the other or at a constant rate; the tools take turns and ask about the
same scenes. All see streams, so that the time to the first text, the times between texts and the whole of a request can
be compared; ours leave out what only we do (prompt and judgement). Our expert asks through the package openai, GuideLLM
does not, so bare loops of `openai` and `http.client` stand beside them: what a client costs is part of its figures.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai

from experts import registry
from experts.llm.ladder import Rung, request
from experts.llm.provider import LLMExpert
from lgdrl.profiler.load import LoadConfig, run_load
from lgdrl.profiler.scenes import SceneQuery, stream
from lgdrl.runs import fingerprint_environment

SCENARIO = "lane-change"
WARM_UP = 3
FIRST, BETWEEN, WHOLE = "first text", "between texts", "whole"
FIGURES = {FIRST: "time_to_first_token_ms", BETWEEN: "inter_token_latency_ms", WHOLE: "request_latency"}
"""Ours, and what GuideLLM calls it."""
SCALE = {"request_latency": 1e3}
Sample = dict[str, list[float]]


def ours(expert: LLMExpert, load: LoadConfig, queries: Sequence[SceneQuery]) -> Sample:
    """Milliseconds by figure, one per request."""
    rows = run_load(expert, load, queries, 1.0, np.random.default_rng(0)).rows
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
    data.write_text(json.dumps([{"messages": one["messages"]} for one in bodies]))
    settings = {key: value for key, value in bodies[0].items() if key != "messages"}
    backend = {
        "kind": "openai_http",
        "target": url,
        "model": model,
        "validate_backend": False,
        "request_format": "/v1/chat/completions",
        "extras": {"body": settings},
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


def bare_http(url: str, model: str, bodies: Sequence[dict[str, Any]]) -> Sample:
    """One request after the other, by the standard library alone."""
    found: Sample = {name: [] for name in FIGURES}
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    for one in bodies:
        begin, moments = time.perf_counter(), []
        content = json.dumps({"model": model, "stream": True, **one})
        connection.request("POST", f"{parts.path}/chat/completions", content, {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                moments.append(time.perf_counter())
        note(found, begin, moments)
    connection.close()
    return warm(found)


def bare_openai(url: str, model: str, bodies: Sequence[dict[str, Any]]) -> Sample:
    """One request after the other, by the package that experts ask through."""
    found: Sample = {name: [] for name in FIGURES}
    with openai.OpenAI(base_url=url, api_key="none") as client:
        for one in bodies:
            begin, moments = time.perf_counter(), []
            for event in client.chat.completions.create(model=model, stream=True, **one):
                if event.choices and event.choices[0].delta.content:
                    moments.append(time.perf_counter())
            note(found, begin, moments)
    return warm(found)


def note(found: Sample, begin: float, moments: Sequence[float]) -> None:
    found[FIRST].append(1e3 * (moments[0] - begin))
    found[WHOLE].append(1e3 * (moments[-1] - begin))
    if len(moments) > 1:
        found[BETWEEN].append(1e3 * (moments[-1] - moments[0]) / (len(moments) - 1))


def warm(found: Sample) -> Sample:
    return {name: values[WARM_UP:] for name, values in found.items()}


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
    queries = stream(SCENARIO, arguments.rounds * each)
    options = {
        "model": model,
        "rung": "text",
        "stream": "always",
        "repair": False,
        "prompt": {"reasoning": "short", "ask_probs": False},
        "sampling": {"max_tokens": arguments.max_tokens},
        "client": {"base_url": url},
    }
    samples: dict[str, Sample] = {}
    with registry.make("llm", SCENARIO, options, 0) as expert, tempfile.TemporaryDirectory() as folder:  # type: ignore[attr-defined]
        for turn in range(arguments.rounds):
            part = queries[turn * each : (turn + 1) * each]
            bodies = [body(expert, query) for query in part]
            tools = {
                "lgdrl": lambda part=part: ours(expert, load, part),
                "guidellm": lambda bodies=bodies: theirs(arguments.guidellm, url, model, load, bodies, Path(folder)),
                "openai": lambda bodies=bodies: bare_openai(url, model, bodies),
                "http.client": lambda bodies=bodies: bare_http(url, model, bodies),
            }
            for tool, ask in tools.items():
                if load.open and tool in ("openai", "http.client"):
                    continue
                for name, values in ask().items():
                    samples.setdefault(tool, {}).setdefault(name, []).extend(values)
                print(f"round {turn + 1}, {tool}: {len(samples[tool][WHOLE])} requests so far")
    return samples


def body(expert: LLMExpert, query: SceneQuery) -> dict[str, Any]:
    """The request that our expert would send about a scene."""
    assert query.context.scene is not None
    prompt = expert.generator.build(query.context.scene, Rung.TEXT.form, query.context.legal)
    config = expert.config
    return request(Rung.TEXT, prompt, config.prompt, config.sampling, choice=False)


def show(samples: dict[str, Sample]) -> None:
    print(f"{'ms':15}{'tool':13}{'n':>6}{'mean':>9}{'p50':>9}{'p90':>9}{'p95':>9}")
    for name in FIGURES:
        for tool, sample in samples.items():
            values = sample[name]
            if values:
                figures = [float(np.mean(values)), *np.percentile(values, [50, 90, 95]).tolist()]
                print(f"{name:15}{tool:13}{len(values):6}" + "".join(f"{value:9.2f}" for value in figures))


if __name__ == "__main__":
    main()
