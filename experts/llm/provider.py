"""The language-model expert: scene -> prompt -> endpoint -> parser -> veto, with a fallback provider behind it all.

Where no endpoint is named, the embedded driver of the package answers in its place: in this process, but through the
same client, parser, cache and budget.

After construction nothing that an endpoint does raises: every failed question becomes the fallback provider's decision,
with its class counted. The order for one context: no driving scene -> fallback; cache; budget and circuit; endpoint
with retries; at most one repair call; veto of unavailable or unsafe actions; lateness.

Where the context has a listener (`Context.say`; a window does) the answer is streamed to it, see `LLMConfig.stream`.

With `deadline_s` no attempt or repair begins after the deadline, but an answer that is under way is awaited up to
`client.total_s`: it comes back as LATE, a label for its own state. Where a fallback provider decided after the deadline
the status stays FALLBACK or VETOED, and `faults` ends with LATE; check `latency_s` before executing such advice.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experts.llm.budget import Budget, BudgetConfig, Usage
from experts.llm.cache import AnswerCache, Mode, Question, Stored
from experts.llm.client import Ability, ChatClient, ClientConfig, Listener, Reply, configured, connect, probe
from experts.llm.faults import VETOES, Fault
from experts.llm.ladder import Rung, SamplingConfig, request, rungs_for
from experts.llm.parse import Parsed, parse, reason_so_far, settled
from experts.llm.prompt import Prompt, PromptConfig, PromptGenerator
from experts.llm.timeline import Timeline
from experts.provider import Context, Decision, PolicyProvider, Status, label_distribution
from experts.safety import refused, unsafe_actions
from sim.config import resolve, to_dict
from sim.errors import UsageError, unknown
from sim.scene import Scene
from sim.view import views_of

if TYPE_CHECKING:
    from experts.serving.driver_model import DriverModel

AUTO, HOSTED, DRIVER = "auto", "gpt-4o-mini", "lgdrl-driver"
"""Model names: whoever is there; the default at endpoints; the embedded driver, also at an endpoint that serves it."""
WEIGHTS = ".safetensors"
EMBEDDED_PROMPT = PromptConfig(reasoning="short", ask_probs=True)
"""What the embedded driver is asked for by default: thoughts cost it nothing extra."""
RICH = ("auto", Rung.JSON_SCHEMA, Rung.JSON_OBJECT)
"""Rungs on which that can be asked for."""


@dataclass(frozen=True)
class CacheConfig:
    """Where answers are kept."""

    mode: Mode = "off"  # off | read-write | replay-only (never opens a socket; a miss is a fallback)
    path: str | None = None  # SQLite file, needed unless off

    def __post_init__(self) -> None:
        if self.mode != "off" and not self.path:
            raise UsageError(f"mode = {self.mode!r}: name the file with cache.path")


@dataclass(frozen=True)
class LLMConfig:
    """Options of the expert `llm`."""

    model: str = "auto"  # as the endpoint calls it; auto: gpt-4o-mini, or without an endpoint the embedded driver
    rung: Literal["auto", "logprobs", "json_schema", "tools", "json_object", "text"] = "auto"  # auto: probe at start-up
    deadline_s: float | None = None  # s from the call to a timely answer; None: the world waits (training)
    spread: float = 0.05  # share that a bare label spreads over all legal actions
    smoothing: float = 0.01  # share of the uniform distribution mixed into given ones, so that none is zero
    veto_unsafe: bool = True  # refuse answers that `experts.safety` calls unsafe where something else is not
    repair: bool = True  # ask once more after an unusable answer
    stream: Literal["watched", "always", "never"] = "watched"  # watched: where somebody sees the reason arrive
    fallback: str = "rule"  # expert that decides when the model does not; "none": status FAILED
    fallback_options: dict[str, Any] = field(default_factory=dict)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    client: ClientConfig = field(default_factory=ClientConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        if self.rung != "auto" and Rung(self.rung) not in rungs_for(self.prompt):
            raise UsageError(
                f"rung = {self.rung!r}: one token cannot carry reasoning, probs or a plan; use another rung"
            )
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise UsageError(f"deadline_s = {self.deadline_s!r}: expected seconds above 0, or null")
        for name in ("spread", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)!r}: expected a share in [0, 1)")


@dataclass(frozen=True, slots=True)
class LLMDecision(Decision):
    """A decision with its history, for logs."""

    rung: str | None = None
    """Rung of the ladder that was used; None when nothing was asked."""
    faults: tuple[Fault, ...] = ()
    """What went wrong on the way, in order."""
    cached: bool = False
    """Every answer came from the cache."""
    model_action: int | None = None
    """What the model chose, also where it was vetoed for being unsafe."""
    plan: tuple[int, ...] = ()
    horizon_s: float | None = None
    prompt: str | None = field(default=None, repr=False)
    """Full text of the question (JSON of its messages)."""
    answer: str | None = field(default=None, repr=False)
    """Text of the last answer."""
    prompt_version: str | None = None
    timeline: Timeline | None = field(default=None, repr=False)
    """What the latency is made of; None where nothing was asked for at all."""


@dataclass(slots=True)
class _Work:
    """One context on its way through the expert."""

    prompt: Prompt
    scene: Scene
    legal: np.ndarray
    timeline: Timeline
    say: Callable[[str], None] | None = None
    faults: list[Fault] = field(default_factory=list)
    detail: str = ""
    parsed: Parsed = field(default_factory=Parsed)
    answer: str | None = None
    repaired: bool = False
    asked: bool = False
    """A request went to the endpoint."""
    tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def fail(self, fault: Fault, detail: str = "") -> None:
        self.faults.append(fault)
        self.detail = detail or self.detail


class LLMExpert(PolicyProvider):
    """A provider over an OpenAI-compatible endpoint. Build it with `make`; close it when done."""

    name = "llm"
    needs = frozenset({"scene"})
    concurrent = True

    def __init__(
        self,
        config: LLMConfig,
        ability: Ability,
        client: ChatClient | None,
        cache: AnswerCache | None,
        budget: Budget,
        fallback: PolicyProvider | None,
        close_fallback: bool = True,
    ) -> None:
        """`client` None means replay-only: no socket can be opened. `close_fallback`: together with this expert."""
        self.config, self.ability, self.fallback, self.budget = config, ability, fallback, budget
        if fallback is not None:
            self.needs = self.needs | fallback.needs
        self.generator = PromptGenerator(config.prompt)
        self._lock = threading.Lock()
        self.counters: Counter[str] = Counter()
        """By `status/...`, `fault/...`, `rung/...`, `cache/...`, `tokens/...`."""
        self._client, self._cache, self._close_fallback = client, cache, close_fallback
        self._cost = 0.0
        self._latencies: list[float] = []

    def __repr__(self) -> str:
        return f"LLMExpert(model={self.config.model!r}, rung={str(self.ability.rung)!r})"

    def decide(self, contexts: Sequence[Context]) -> Sequence[LLMDecision]:
        """One decision per context, in order. Questions go out together, `client.concurrency` at a time.

        May be called from several threads at once.
        """
        begin = time.monotonic()
        works = [self._prepare(context, begin) for context in contexts]
        open_works = [work for work in works if work is not None and not self._replay(work, begin)]
        if open_works and self._client is not None:
            client = self._client
            client.run([client.limited(self._ask(client, work, begin)) for work in open_works])
        for work in works:
            if work is not None:
                self._judge(work)
        fallbacks = self._fall_back(contexts, works)
        decisions = [
            self._decision(context, work, fallbacks.get(i))
            for i, (context, work) in enumerate(zip(contexts, works, strict=True))
        ]
        with self._lock:
            for decision in decisions:
                self._count(decision)
        return decisions

    # One question

    def _prepare(self, context: Context, begin: float) -> _Work | None:
        """The question about a context; None when it holds no driving scene with discrete actions."""
        scene = context.scene
        if scene is None or not hasattr(context.action_space, "n"):
            return None
        legal = scene.legal if context.legal is None else context.legal
        try:
            prompt = self.generator.build(scene, self.ability.rung.form, legal)
            return _Work(prompt, scene, np.asarray(legal, bool), Timeline(begin), context.say)
        except ValueError:
            return None

    def _question(self, prompt: Prompt) -> Question:
        sampling = to_dict(self.config.sampling) | {"choice": self.ability.choice}
        return Question(self.config.model, prompt.version, sampling, self.ability.rung, prompt.text())

    def _lookup(self, work: _Work, prompt: Prompt) -> Stored | None:
        if self._cache is None:
            return None
        try:
            stored = self._cache.get(self._question(prompt))
        except sqlite3.Error as error:
            work.fail(Fault.CACHE_IO, f"answer cache: {error}")
            return None
        with self._lock:
            self.counters["cache/hits" if stored else "cache/misses"] += 1
        return stored

    def _store(self, work: _Work, prompt: Prompt, reply: Reply) -> None:
        if self._cache is None or self._cache.mode != "read-write" or reply.answer is None:
            return
        try:
            self._cache.put(self._question(prompt), Stored(reply.answer, reply.usage, reply.fingerprint))
        except sqlite3.Error as error:
            work.fail(Fault.CACHE_IO, f"answer cache: {error}")

    def _replay(self, work: _Work, begin: float) -> bool:
        """Answer from the cache as far as it goes; True when nothing is left to ask."""
        stored = self._lookup(work, work.prompt)
        if stored is not None:
            self._take(work, stored.answer, work.prompt)
            if self._needs_repair(work):
                again = work.prompt.repair(work.answer or "", str(work.faults[-1]))
                stored = self._lookup(work, again)
                if stored is not None:
                    work.repaired = True
                    self._take(work, stored.answer, again)
        work.timeline.built = time.monotonic()
        work.seconds = work.timeline.built - begin
        unanswered = work.answer is None
        if self._client is None and unanswered:
            work.fail(Fault.CACHE_MISS, "replay-only, and the cache has no answer to this prompt")
        return self._client is None or not (unanswered or self._needs_repair(work))

    async def _ask(self, client: ChatClient, work: _Work, begin: float) -> None:
        """The first question (unless the cache had its answer) and, if need be, one repair."""
        now = work.timeline.started = time.monotonic()
        until = now + self.config.client.total_s
        timely = math.inf if self.config.deadline_s is None else begin + self.config.deadline_s
        if work.answer is None:
            await self._exchange(client, work, work.prompt, until, timely)
        if self._needs_repair(work) and time.monotonic() < min(until, timely):
            again = work.prompt.repair(work.answer or "", str(work.faults[-1]))
            work.repaired = True
            await self._exchange(client, work, again, until, timely)
        work.seconds = time.monotonic() - begin

    async def _exchange(self, client: ChatClient, work: _Work, prompt: Prompt, until: float, timely: float) -> None:
        config = self.config
        args = request(self.ability.rung, prompt, config.prompt, config.sampling, self.ability.choice)
        reply = await client.ask(args, prompt.text(), until, timely, self._listener(work), work.timeline)
        work.asked = work.asked or reply.attempts > 0
        work.tokens += reply.tokens
        work.cost += reply.cost
        if reply.usage is not None:
            self._count_usage(reply.usage)
        if reply.answer is None:
            work.fail(reply.fault or Fault.PROTOCOL, reply.detail)
            return
        self._store(work, prompt, reply)
        self._take(work, reply.answer, prompt)

    def _listener(self, work: _Work) -> Listener | None:
        """Who hears the text of the answer while it comes; None: it comes in one piece."""
        say, form = work.say, work.prompt.form
        if say is not None and form != "label" and self.config.stream != "never":
            return lambda text: say(reason_so_far(text, form))
        return (lambda text: None) if self.config.stream == "always" else None

    def _take(self, work: _Work, answer: Any, prompt: Prompt) -> None:
        work.answer = answer.content or answer.refusal
        work.parsed = parse(answer, prompt)
        if work.parsed.fault is not None:
            work.fail(work.parsed.fault)

    def _needs_repair(self, work: _Work) -> bool:
        """An answer that named no action, not yet asked about again."""
        fault = work.parsed.fault
        return self.config.repair and not work.repaired and fault is not None and fault not in VETOES

    def _judge(self, work: _Work) -> None:
        """Refuse an unsafe answer."""
        action = work.parsed.action
        if action is not None:
            work.timeline.acted = settled(work.answer or "", work.prompt.form)
            if self.config.veto_unsafe and refused(unsafe_actions(views_of([work.scene]))[0], work.legal, action):
                work.fail(Fault.UNSAFE)
        work.timeline.end = max(work.timeline.begin + work.seconds, work.timeline.done or 0.0)

    # Decisions

    def _fall_back(self, contexts: Sequence[Context], works: Sequence[_Work | None]) -> dict[int, Decision]:
        """The fallback provider's decisions by index, asked for in one batch."""
        needed = [i for i, work in enumerate(works) if _status(work) in (Status.FALLBACK, Status.VETOED)]
        if not needed or self.fallback is None:
            return {}
        decisions = self.fallback.decide([contexts[i] for i in needed])
        return dict(zip(needed, decisions, strict=True))

    def _decision(self, context: Context, work: _Work | None, fallback: Decision | None) -> LLMDecision:
        status = _status(work)
        if work is None:
            history = LLMDecision(action=None, faults=(Fault.NO_SCENE,))
            return self._from_fallback(history, context, status, fallback, "the context holds no driving scene")
        late = self.config.deadline_s is not None and work.seconds > self.config.deadline_s
        if status in (Status.FALLBACK, Status.VETOED):
            why = f"{work.faults[-1]}: {work.detail}" if work.detail else str(work.faults[-1])
            work.faults += [Fault.LATE] if late else []
            return self._from_fallback(self._history(work), context, status, fallback, why)
        if late:
            work.fail(Fault.LATE)
        parsed = work.parsed
        assert parsed.action is not None
        return replace(
            self._history(work),
            action=parsed.action,
            probs=self._probs(parsed, work.prompt),
            confidence=None if parsed.probs is None else float(parsed.probs[parsed.action]),
            reason=parsed.reason,
            status=Status.LATE if late else status,
            plan=parsed.plan,
            horizon_s=parsed.horizon_s,
        )

    def _from_fallback(
        self, history: LLMDecision, context: Context, status: Status, fallback: Decision | None, why: str
    ) -> LLMDecision:
        """The fallback's decision under our status; FAILED when it has none that is legal."""
        legal = context.scene.legal if context.legal is None and context.scene is not None else context.legal
        if fallback is None or not _is_legal(fallback.action, legal):
            return replace(history, status=Status.FAILED, reason=why)
        action, probs = fallback.action, fallback.probs
        if probs is None and legal is not None and isinstance(action, int | np.integer):
            probs = label_distribution(int(action), legal, self.config.spread)
        return replace(history, action=action, probs=probs, confidence=fallback.confidence, status=status, reason=why)

    def _history(self, work: _Work) -> LLMDecision:
        """What is known of a question, with no action yet."""
        return LLMDecision(
            action=None,
            latency_s=work.seconds,
            tokens=work.tokens,
            cost=work.cost,
            rung=str(self.ability.rung) if work.answer is not None or work.asked else None,
            faults=tuple(work.faults),
            cached=work.answer is not None and not work.asked,
            model_action=work.parsed.action,
            prompt=work.prompt.text(),
            answer=work.answer,
            prompt_version=work.prompt.version,
            timeline=work.timeline,
        )

    def _probs(self, parsed: Parsed, prompt: Prompt) -> np.ndarray:
        legal = np.zeros(len(prompt.actions), dtype=bool)
        legal[list(prompt.legal)] = True
        if parsed.probs is None:
            assert parsed.action is not None
            return label_distribution(parsed.action, legal, self.config.spread)
        return (1 - self.config.smoothing) * parsed.probs + self.config.smoothing * legal / legal.sum()

    # Counting

    def _count(self, decision: LLMDecision) -> None:
        self.counters[f"status/{decision.status.value}"] += 1
        self.counters.update(f"fault/{fault}" for fault in decision.faults)
        if decision.rung is not None:
            self.counters[f"rung/{decision.rung}"] += 1
        self._cost += decision.cost
        self.counters["tokens/total"] += decision.tokens
        self._latencies.append(decision.latency_s)
        del self._latencies[:-10_000]

    def _count_usage(self, usage: Usage) -> None:
        with self._lock:
            self.counters["tokens/input"] += usage.input
            self.counters["tokens/cached_input"] += usage.cached
            self.counters["tokens/output"] += usage.output

    def metrics(self) -> dict[str, float]:
        """Counts since the start of the run, latency percentiles (s) of the last 10,000 decisions, and money."""
        found: dict[str, float] = {f"status/{status.value}": 0.0 for status in Status}
        found |= {key: float(value) for key, value in sorted(self.counters.items())}
        found |= {"cost": self._cost, "budget/calls": float(self.budget.calls), "budget/cost": self.budget.cost}
        if self._client is not None:
            found |= {f"attempt_fault/{fault}": float(count) for fault, count in sorted(self._client.faults.items())}
            found["client/retries"] = float(self._client.retries)
            found["client/circuit_opened"] = float(self._client.breaker.times_opened)
        if self._latencies:
            p50, p95 = np.percentile(self._latencies, [50, 95])
            found |= {"latency/p50_s": float(p50), "latency/p95_s": float(p95)}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Counters and budget in plain values, so that a resumed run continues them."""
        return {
            "counters": dict(self.counters),
            "cost": self._cost,
            "budget": self.budget.state_dict(),
            "fallback": {} if self.fallback is None else self.fallback.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.counters = Counter(state["counters"])
        self._cost = float(state["cost"])
        self.budget.load_state_dict(state["budget"])
        if self.fallback is not None:
            self.fallback.load_state_dict(state["fallback"])

    def interrupt(self) -> None:
        """End the questions under way, and those to come, at once: the fallback decides. From any thread, for good."""
        if self._client is not None:
            self._client.interrupt()
        if self.fallback is not None:
            self.fallback.interrupt()

    def close(self) -> None:
        """Close connections, the cache, and the fallback unless it was given from outside. Safe to call twice."""
        if self._client is not None:
            self._client.close()
        if self._cache is not None:
            self._cache.close()
        if self.fallback is not None and self._close_fallback:
            self.fallback.close()


def make(options: Mapping[str, Any], scenario: str, seed: int) -> LLMExpert:
    """Factory of the entry point group `lgdrl.experts`.

    Args: values for `LLMConfig`; `fallback` may also be a ready `PolicyProvider`, closed by its maker; scenario name,
        for the fallback; seed of the retries' jitter.
    Raises: UsageError, one line, for bad options, an endpoint that is unreachable, refuses the key or serves no rung,
        and a broken cache file.
    """
    given = dict(options)
    instance = given.pop("fallback") if isinstance(given.get("fallback"), PolicyProvider) else None
    chosen = given.get("cache")
    if isinstance(chosen, Mapping) and chosen.get("mode") is False:  # YAML reads a bare `off` as false
        given["cache"] = {**chosen, "mode": "off"}
    config = resolve(LLMConfig(), given, "expert.llm")
    embedded = _embedded(config)
    if embedded:
        config = resolve(LLMConfig(prompt=EMBEDDED_PROMPT) if config.rung in RICH else LLMConfig(), given, "expert.llm")
    recorded = config.cache.mode == "replay-only" and not config.model.endswith(WEIGHTS)
    driver = _driver(config) if embedded and not recorded else None
    if driver is not None:
        config = replace(config, model=driver.name)
    elif config.model == AUTO:
        config = replace(config, model=DRIVER if embedded else HOSTED)
    fallback = instance or _fallback(config, scenario, seed)
    budget = Budget(config.budget)
    cache = None
    if config.cache.mode != "off" and config.cache.path:
        cache = AnswerCache(Path(config.cache.path), config.cache.mode)
    if config.cache.mode == "replay-only":
        return LLMExpert(config, _recorded(config, cache), None, cache, budget, fallback, instance is None)
    client = connect(config.model, config.client, budget, seed, driver)
    try:
        rungs = rungs_for(config.prompt) if config.rung == "auto" else (Rung(config.rung),)
        generator = PromptGenerator(config.prompt)
        ability = probe(client, generator, config.sampling, rungs)
        if cache is not None:
            cache.record_rung(config.model, generator.version, ability.rung, ability.choice)
    except (UsageError, sqlite3.Error) as error:
        client.close()
        if cache is not None:
            cache.close()
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"answer cache {config.cache.path!r} cannot be written: {error}") from None
    expert = LLMExpert(config, ability, client, cache, budget, fallback, instance is None)
    if driver is None:
        expert.endpoint = client.endpoint
    else:
        count = driver.driver.parameter_count / 1e6
        expert.note = (
            f"The embedded driver advises ({driver.name}, {count:.1f} million parameters); name another language model "
            "with OPENAI_BASE_URL or expert_options.client.base_url."
        )
    return expert


def _embedded(config: LLMConfig) -> bool:
    """Whether the embedded driver is meant: it is named, or nobody is, and there is no endpoint."""
    named = config.model == DRIVER or config.model.endswith(WEIGHTS)
    return (named or config.model == AUTO) and not configured(config.client)


def _driver(config: LLMConfig) -> DriverModel:
    """The embedded driver, or that of the file which the config names."""
    from experts.language.driver import Driver
    from experts.serving.driver_model import DriverModel

    return DriverModel(Driver.load(config.model if config.model.endswith(WEIGHTS) else None))


def _fallback(config: LLMConfig, scenario: str, seed: int) -> PolicyProvider | None:
    from experts import registry

    if config.fallback == "none":
        return None
    if config.fallback == LLMExpert.name:
        raise unknown("fallback expert", config.fallback, (set(registry.available()) | {"none"}) - {LLMExpert.name})
    return registry.make(config.fallback, scenario, config.fallback_options, seed)


def _recorded(config: LLMConfig, cache: AnswerCache | None) -> Ability:
    """The rung that the answers were recorded with; the first possible one when the cache does not know it."""
    found = cache.recorded_rung(config.model, PromptGenerator(config.prompt).version) if cache else None
    if config.rung != "auto":
        return Ability(Rung(config.rung), bool(found and found[0] == config.rung and found[1]))
    return Ability(*found) if found else Ability(rungs_for(config.prompt)[0])


def _status(work: _Work | None) -> Status:
    """Status before lateness is looked at."""
    if work is None:
        return Status.FALLBACK
    if any(fault in VETOES for fault in work.faults[-1:]):
        return Status.VETOED
    if work.parsed.action is None:
        return Status.FALLBACK
    return Status.REPAIRED if work.repaired else Status.OK


def _is_legal(action: Any, legal: np.ndarray | None) -> bool:
    """Whether a fallback's action can stand: anything continuous, or a legal id."""
    if action is None:
        return False
    if legal is None or not isinstance(action, int | np.integer):
        return True
    return 0 <= int(action) < len(legal) and bool(legal[int(action)])
