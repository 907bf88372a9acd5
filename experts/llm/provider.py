"""The language-model expert: scene -> prompt -> endpoint -> parser -> veto, with a fallback provider behind it all.

After construction nothing that an endpoint does raises: every failed query becomes the fallback provider's decision,
with its class counted. The order for one context: no driving scene -> fallback; cache; budget and circuit; endpoint
with retries; at most one repair request (`experts.llm.inquiry`); veto of unavailable or unsafe actions; lateness.

Where the context has a listener (`Context.say`; a window does) the answer is streamed to it, see `LLMConfig.stream`.

With `deadline_s` no attempt or repair begins after the deadline, but an answer that is under way is awaited up to
`client.total_s`: it comes back as LATE, a label for its own state. Where a fallback provider decided after the deadline
the status stays FALLBACK or VETOED, and `faults` ends with LATE; check `latency_s` before executing such a decision.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from experts.llm.budget import Budget
from experts.llm.cache import AnswerCache
from experts.llm.client import ChatClient
from experts.llm.config import LLMConfig
from experts.llm.decision import LLMDecision
from experts.llm.faults import Fault
from experts.llm.inquiry import Inquirer, Inquiry
from experts.llm.parse import Parsed, settled
from experts.llm.probe import Ability
from experts.llm.prompt import Prompt, PromptGenerator
from experts.llm.statistics import Statistics
from experts.llm.timeline import RequestTimeline
from experts.provider import Context, Decision, PolicyProvider, Status, label_distribution
from experts.safety import refused, unsafe_actions
from experts.spaces import require_manoeuvres
from sim.view import views_of


class LLMExpert(PolicyProvider):
    """A provider over an OpenAI-compatible endpoint. Built by `experts.llm.build`."""

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
        """Take over what was probed and opened.

        Args:
            config: Options.
            ability: What the endpoint can do.
            client: None: replay-only, no socket can be opened.
            cache: None: none is used.
            budget: What the client pays from.
            fallback: Decides where the model does not; None: the decision has the status FAILED.
            close_fallback: Closing this expert closes the fallback too.
        """
        self.config, self.ability, self.fallback, self.budget = config, ability, fallback, budget
        if fallback is not None:
            self.needs = self.needs | fallback.needs
        self.generator = PromptGenerator(config.prompt)
        self.statistics = Statistics()
        self._inquirer = Inquirer(config, ability, client, cache, self.statistics)
        self._close_fallback = close_fallback

    def __repr__(self) -> str:
        return f"LLMExpert(model={self.config.model!r}, rung={str(self.ability.rung)!r})"

    def check_spaces(self, observation_space: Space, action_space: Space, scenario: str) -> None:
        require_manoeuvres(action_space, scenario)
        if self.fallback is not None:
            self.fallback.check_spaces(observation_space, action_space, scenario)

    def decide(self, contexts: Sequence[Context]) -> Sequence[LLMDecision]:
        """Decide in each context. Requests go out together, at most `client.concurrency` in flight.

        May be called from several threads at once.

        Args:
            contexts: What is known of each of R states.

        Returns:
            R decisions, in the order of `contexts`.
        """
        begin = time.monotonic()
        inquiries = [self._prepare(context, begin) for context in contexts]
        prepared = [inquiry for inquiry in inquiries if inquiry is not None]
        self._inquirer.inquire(prepared, begin)
        for inquiry in prepared:
            self._check(inquiry)
        fallbacks = self._fall_back(contexts, inquiries)
        decisions = [
            self._decision(context, inquiry, fallbacks.get(i))
            for i, (context, inquiry) in enumerate(zip(contexts, inquiries, strict=True))
        ]
        self.statistics.count_decisions(decisions)
        return decisions

    def _prepare(self, context: Context, begin: float) -> Inquiry | None:
        """The inquiry about a context; None when it holds no driving scene with discrete actions."""
        scene = context.scene
        if scene is None or not hasattr(context.action_space, "n"):
            return None
        legal = scene.legal if context.legal is None else context.legal
        try:
            prompt = self.generator.build(scene, self.ability.rung.form, legal)
            return Inquiry(prompt, scene, np.asarray(legal, bool), RequestTimeline(begin), context.say)
        except ValueError:
            return None

    def _check(self, inquiry: Inquiry) -> None:
        """Refuse an unsafe answer."""
        action = inquiry.parsed.action
        if action is not None:
            inquiry.timeline.acted = settled(inquiry.answer or "", inquiry.prompt.form)
            veto, views = self.config.veto_unsafe, views_of([inquiry.scene])
            if veto and refused(unsafe_actions(views)[0], inquiry.legal, action):
                inquiry.fail(Fault.UNSAFE)
        timeline = inquiry.timeline
        timeline.end = max(timeline.begin + inquiry.seconds, timeline.done or 0.0)

    def _fall_back(self, contexts: Sequence[Context], inquiries: Sequence[Inquiry | None]) -> dict[int, Decision]:
        """The fallback provider's decisions by index, asked for in one batch."""
        needed = [i for i, inquiry in enumerate(inquiries) if _status(inquiry) in (Status.FALLBACK, Status.VETOED)]
        if not needed or self.fallback is None:
            return {}
        decisions = self.fallback.decide([contexts[i] for i in needed])
        return dict(zip(needed, decisions, strict=True))

    def _decision(self, context: Context, inquiry: Inquiry | None, fallback: Decision | None) -> LLMDecision:
        status = _status(inquiry)
        if inquiry is None:
            history = LLMDecision(action=None, faults=(Fault.NO_SCENE,))
            return self._from_fallback(history, context, status, fallback, "the context holds no driving scene")
        late = self.config.deadline_s is not None and inquiry.seconds > self.config.deadline_s
        if status in (Status.FALLBACK, Status.VETOED):
            fault = inquiry.faults[-1]
            why = f"{fault}: {inquiry.detail}" if inquiry.detail else str(fault)
            inquiry.faults += [Fault.LATE] if late else []
            return self._from_fallback(self._history(inquiry), context, status, fallback, why)
        if late:
            inquiry.fail(Fault.LATE)
        parsed = inquiry.parsed
        assert parsed.action is not None
        return replace(
            self._history(inquiry),
            action=parsed.action,
            probs=self._probs(parsed, inquiry.prompt),
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

    def _history(self, inquiry: Inquiry) -> LLMDecision:
        """What is known of an inquiry, with no action yet."""
        return LLMDecision(
            action=None,
            latency_s=inquiry.seconds,
            tokens=inquiry.tokens,
            cost=inquiry.cost,
            rung=str(self.ability.rung) if inquiry.answer is not None or inquiry.sent else None,
            faults=tuple(inquiry.faults),
            cached=inquiry.answer is not None and not inquiry.sent,
            model_action=inquiry.parsed.action,
            prompt=inquiry.prompt.text(),
            answer=inquiry.answer,
            prompt_version=inquiry.prompt.version,
            timeline=inquiry.timeline,
        )

    def _probs(self, parsed: Parsed, prompt: Prompt) -> np.ndarray:
        legal = np.zeros(len(prompt.actions), dtype=bool)
        legal[list(prompt.legal)] = True
        if parsed.probs is None:
            assert parsed.action is not None
            return label_distribution(parsed.action, legal, self.config.spread)
        return (1 - self.config.smoothing) * parsed.probs + self.config.smoothing * legal / legal.sum()

    @property
    def exhausted(self) -> bool:
        """See `PolicyProvider`."""
        return self.budget.exhausted

    def metrics(self) -> dict[str, float]:
        """Counts since the start of the run, latency percentiles (s) of the last 10,000 decisions, and money."""
        found = self.statistics.metrics()
        found |= {"budget/calls": float(self.budget.calls), "budget/cost": self.budget.cost}
        client = self._inquirer.client
        if client is not None:
            found |= {f"attempt_fault/{fault}": float(count) for fault, count in sorted(client.faults.items())}
            found["client/retries"] = float(client.retries)
            found["client/circuit_opened"] = float(client.breaker.times_opened)
        return found | self.statistics.latencies()

    def state_dict(self) -> dict[str, Any]:
        """Counters and budget in plain values, so that a resumed run continues them."""
        fallback = {} if self.fallback is None else self.fallback.state_dict()
        return self.statistics.state_dict() | {"budget": self.budget.state_dict(), "fallback": fallback}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Args:
            state: What `state_dict` returned.
        """
        self.statistics.load_state_dict(state)
        self.budget.load_state_dict(state["budget"])
        if self.fallback is not None:
            self.fallback.load_state_dict(state["fallback"])

    def interrupt(self) -> None:
        """End the requests under way, and those to come, at once: the fallback decides. From any thread, for good."""
        if self._inquirer.client is not None:
            self._inquirer.client.interrupt()
        if self.fallback is not None:
            self.fallback.interrupt()

    def close(self) -> None:
        """Close connections, the cache, and the fallback unless it was given from outside. Safe to call twice."""
        if self._inquirer.client is not None:
            self._inquirer.client.close()
        if self._inquirer.cache is not None:
            self._inquirer.cache.close()
        if self.fallback is not None and self._close_fallback:
            self.fallback.close()


def _status(inquiry: Inquiry | None) -> Status:
    """Status before lateness is looked at."""
    return Status.FALLBACK if inquiry is None else inquiry.status


def _is_legal(action: Any, legal: np.ndarray | None) -> bool:
    """Whether a fallback's action can stand: anything continuous, or a legal id."""
    if action is None:
        return False
    if legal is None or not isinstance(action, int | np.integer):
        return True
    return 0 <= int(action) < len(legal) and bool(legal[int(action)])
