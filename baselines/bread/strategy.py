"""BREAD-style training, as specified here: GRPO that branches off an expert's trace where the student fails.

Idea and name: BREAD (arXiv 2506.17211). Its abstract was available, its method section was not; mechanism and settings
are this project's reconstruction, and no figure of the paper is reproduced or claimed. Per prompt: a group from the
bare prompt; if too few succeed and there is a trace, a search for the shortest opening of the trace after which a
group's success lies in a range. That group is learned from as in GRPO: advantages within it, ratio and KL given the
opening, whose own tokens have no gradient. The last episode is always the student's own. A prompt for which nothing
helps is left out of the update. With `low` = 0 nothing is ever searched, and this is GRPO to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np

from baselines.bread import anchors
from baselines.bread.anchors import Found, Range, Search
from baselines.language.method import token_method
from baselines.language.options import TokenOptions
from baselines.language.rollout import Request, RolloutGroup, Sampler
from baselines.language.strategy import TokenSettings, TokenStrategy, mean
from baselines.language.task import TaskPrompt, Trace
from sim.bounds import Bounds, Share, config_dataclass


@config_dataclass
class BREADConfig:
    """When a prompt is too hard, and how its hint is found."""

    low: Share = 0.125  # share of successes below which a group is too hard: one of eight
    high: Share = 0.9  # share above which a hint is longer than it need be
    episodes: Annotated[int, Bounds(2, 1000)] = 10  # that a trace is cut into, at boundaries that it has
    anchor_mode: Literal["prefix", "hint"] = "prefix"  # the opening begins the answer, or is shown in the prompt
    search: Literal["binary", "linear", "random"] = "binary"  # the last two for comparison
    stop: Literal["first", "shortest"] = "first"  # of a binary search: at the first hint in range, or at the shortest

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low = {self.low}, high = {self.high}: choose 0 <= low <= high <= 1")


class BREAD(TokenStrategy):
    """Hints from traces, as short as they can be.

    Args:
        config: The settings.
        settings: Of the run.
    """

    def __init__(self, config: BREADConfig, settings: TokenSettings) -> None:
        self.config: BREADConfig = config
        self._stream = np.random.default_rng(settings.seed)
        self._last: dict[str, float | None] = {}

    def collect(self, prompts: Sequence[TaskPrompt], sampler: Sampler) -> list[RolloutGroup]:
        groups: list[RolloutGroup | None] = list(sampler.groups([Request.bare(prompt) for prompt in prompts]))
        failing = [i for i, group in enumerate(groups) if group and group.success < self.config.low]
        traces = {i: trace.merged(self.config.episodes) for i in failing if (trace := prompts[i].trace)}
        tried: dict[tuple[int, int], RolloutGroup] = {}

        def probe(pairs: list[tuple[int, int]]) -> list[float]:
            """Groups at the anchors of some searches, all written together."""
            places = [(searched[k], anchor) for k, anchor in pairs]
            requests = [self._request(sampler, prompts[i], traces[i], anchor) for i, anchor in places]
            written = sampler.groups(requests, stream=self._stream)
            tried.update(zip(places, written, strict=True))
            return [group.success for group in written]

        searched = list(traces)
        found = anchors.run([new_search(self.config, traces[i].episodes, self._stream) for i in searched], probe)
        for i, end in zip(searched, found, strict=True):
            bare = groups[i]
            assert bare is not None
            if end.anchor is not None:
                groups[i] = tried.pop((i, end.anchor))
                sampler.discard(bare)
            elif not bare.success:
                groups[i] = None
                sampler.discard(bare)
        for group in tried.values():
            sampler.discard(group)
        self._last = _columns(groups, found, len(failing), traces)
        return [group for group in groups if group is not None]

    def _request(self, sampler: Sampler, prompt: TaskPrompt, trace: Trace, anchor: int) -> Request:
        return Request.anchored(sampler.task, prompt, trace.opening(anchor), anchor, self.config.anchor_mode)

    def metrics(self) -> dict[str, float | None]:
        return self._last

    def state_dict(self) -> dict:
        return {"stream": self._stream.bit_generator.state}

    def load_state_dict(self, state: dict) -> None:
        self._stream.bit_generator.state = state["stream"]


def new_search(config: BREADConfig, episodes: int, stream: np.random.Generator) -> Search:
    """The search that a config names.

    Args:
        config: The settings.
        episodes: Of the trace.
        stream: For random searches.
    """
    wanted = Range(config.low, config.high)
    if config.search == "linear":
        return anchors.linear(episodes, wanted)
    if config.search == "random":
        return anchors.anywhere(episodes, stream)
    return anchors.binary(episodes, wanted, config.stop)


def _columns(
    groups: Sequence[RolloutGroup | None], found: Sequence[Found], failing: int, traces: dict[int, Trace]
) -> dict[str, float | None]:
    """The metrics of one update."""
    hinted = {i: group for i, group in enumerate(groups) if group and group.request.anchor}
    kept = [group.request.anchor for group in groups if group]
    return {
        "failing": failing,  # prompts whose bare group was too hard
        "without_trace": failing - len(traces),  # of these: nothing to search, learned from as they were
        "skipped": sum(group is None for group in groups),  # of these: no hint helped
        "probes": mean([end.probes for end in found]),  # groups per search, without the bare one
        "anchor": mean(kept),  # episodes given away, over all groups that are learned from
        "hinted_anchor": mean([group.request.anchor for group in hinted.values()]),  # over those with a hint
        "revealed_share": mean([group.request.revealed / len(traces[i].tokens) for i, group in hinted.items()]),
    }


@dataclass(frozen=True)
class BREADOptions(TokenOptions):
    method: BREADConfig = field(default_factory=BREADConfig)


def _build(options: BREADOptions, settings: TokenSettings) -> BREAD:
    return BREAD(options.method, settings)


METHOD = token_method(
    "bread", "language model: GRPO with the shortest hint that helps (BREAD-style)", BREADOptions(), _build
)
