"""Recorded episodes: every decision with its scene, who was in control, and what learner and expert proposed.

An episode is one .npz file: plain arrays (readable by `numpy.load` without pickle) and `header`, JSON as bytes, which
names the format's number. Files are written to a temporary name, synced and renamed.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experts.data.columns import Columns, pack, put_pictures, put_scenes, take_pictures, take_scenes, unpack
from sim.errors import UsageError
from sim.files import write_atomically
from sim.picture import Picture, Shown

Controller = Literal["learner", "expert", "human"]
KIND = "lgdrl episode"
FORMAT = 2
"""A reader refuses files with a higher number. Files that hold nothing which 1 did not have say 1."""
_ARRAYS = ("learner_probs", "q_values", "expert_probs", "unsafe")
_ACTIONS = ("learner_action", "expert_action")
_NUMBERS = (*_ACTIONS, "reaction_s")
_NEWER = ("learner_std", "authority")
"""Arrays and numbers that there are since format 2; left out where no decision has them."""
_REMARKS = ("controller", "expert_status", "expert_reason", "terms")


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision."""

    scene: Shown
    """Before the decision: the traffic scene, or a picture of an environment that has none."""
    obs: np.ndarray
    """What the learner sees, before the decision (a dict of arrays where the environment has such observations)."""
    legal: np.ndarray
    """bool (A,)"""
    action: int
    """Executed: an id (discrete actions) or an array (continuous ones)."""
    controller: Controller
    """Whose action was executed."""
    reward: float
    learner_action: int | np.ndarray | None = None
    """Its proposal: the greedy action, or the mean of a continuous policy."""
    learner_probs: np.ndarray | None = None
    """(A,)"""
    q_values: np.ndarray | None = None
    """(A,) smaller of the twin critics."""
    expert_action: int | np.ndarray | None = None
    expert_probs: np.ndarray | None = None
    """(A,)"""
    expert_status: str | None = None
    expert_reason: str = ""
    expert_latency_s: float = 0.0
    unsafe: np.ndarray | None = None
    """bool (A,): actions that fail the safety check."""
    terms: dict[str, float] | None = None
    """What each term of the reward adds to it, before the environment rescales their sum (where it does)."""
    reaction_s: float | None = None
    """A person's: from the moment that the scene was shown to the input, s."""
    learner_std: np.ndarray | None = None
    """(D,) standard deviation of a Gaussian policy."""
    authority: float | None = None
    """The expert's share of the executed action, 0 to 1; None: no strategy decided."""
    control: str = ""
    """Why it had that share: a `Reason` of the strategy, in lower case."""


@dataclass(frozen=True)
class Episode:
    """Decisions in order, and the state after the last one."""

    scenario: str
    backend: str
    scenario_config: dict[str, Any]
    """Plain values (`sim.config.to_dict`)."""
    seed: int | None
    driver: str
    """Who drove, in words: "run runs/demo", "expert rule", "human"."""
    turns: tuple[Turn, ...]
    last_scene: Shown
    last_obs: np.ndarray
    last_legal: np.ndarray
    terminated: bool
    truncated: bool
    summary: dict[str, Any]
    """`sim.env.EpisodeSummary` as plain values; {} where the episode was broken off."""

    @property
    def outcome(self) -> str:
        """How it ended: success, crash ... where the environment says so."""
        unnamed = "time limit" if self.truncated else "ended" if self.terminated else "broken off"
        return str(self.summary.get("outcome") or unnamed)


def save_episode(path: Path | str, episode: Episode) -> Path:
    """Write an episode, making its folder.

    Args:
        path: .npz is added where it is missing.
        episode: Any.

    Returns:
        The path written.

    Raises:
        UsageError: It cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    content = to_bytes(episode)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise UsageError(f"cannot write recording {str(path)!r}: {error.strerror}: choose another path") from None
    return path


def add_episode(folder: Path | str, episode: Episode) -> Path:
    """`save_episode` into a folder of recordings, under the next number: nothing there is overwritten."""
    taken = [path.name.split("-")[1] for path in Path(folder).glob("episode-*.npz")]
    number = max([int(text) for text in taken if text.isdigit()], default=0) + 1
    seed = "" if episode.seed is None else f"-seed-{episode.seed}"
    return save_episode(Path(folder) / f"episode-{number:04d}{seed}.npz", episode)


def load_episodes(path: Path | str) -> list[Episode]:
    """The episode of a file, or those of all .npz files of a folder in the order of their names.

    Args:
        path: A file or a folder.

    Raises:
        UsageError: It is missing, empty, foreign, damaged or of a newer format.
    """
    path = Path(path)
    if not path.is_dir():
        return [_load(path)]
    files = sorted(path.glob("*.npz"))
    if not files:
        raise UsageError(f"no recording in folder {str(path)!r}: it holds no .npz file")
    return [_load(file) for file in files]


def to_bytes(episode: Episode) -> bytes:
    """The content of an episode's file; equal episodes give equal bytes."""
    return pack(*_packed(episode), _plain)


def from_bytes(content: bytes, name: str) -> Episode:
    """Inverse of `to_bytes`. UsageError, which calls it `name`, for anything else."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise UsageError(f"{name!r} is not a recording, or it was cut short: record it again")
    try:
        arrays, header = unpack(content)
        if not isinstance(header, dict) or header.get("kind") != KIND:
            raise UsageError(f"{name!r} is not a recording: its header does not say {KIND!r}")
        if header["format"] > FORMAT:
            raise UsageError(
                f"recording {name!r} has format {header['format']}, this version reads up to {FORMAT}: "
                "update lgdrl to read it"
            )
        return _unpacked(header, arrays)
    except UsageError:
        raise
    except Exception as error:  # a damaged zip, array or header raises almost anything
        raise UsageError(f"recording {name!r} is damaged ({type(error).__name__}): record it again") from None


def _load(path: Path) -> Episode:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read recording {str(path)!r}: {reason}") from None
    return from_bytes(content, str(path))


def _packed(episode: Episode) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """An episode as arrays and a header."""
    turns, columns = episode.turns, Columns()
    scenes = _put_shown(columns, [*(turn.scene for turn in turns), episode.last_scene])
    observations: list[Any] = [*(turn.obs for turn in turns), episode.last_obs]
    keys = sorted(observations[0]) if isinstance(observations[0], dict) else None
    for k, key in enumerate(keys or [None]):
        columns.put(f"obs{k}", observations if keys is None else (each[key] for each in observations))
    columns.put("legal", [*(turn.legal for turn in turns), episode.last_legal])
    columns.put("action", (turn.action for turn in turns))
    for name in (*_ARRAYS, *_NUMBERS):
        columns.put(name, (getattr(turn, name) for turn in turns))
    newer = [name for name in _NEWER if any(getattr(turn, name) is not None for turn in turns)]
    for name in newer:
        columns.put(name, (getattr(turn, name) for turn in turns))
    for name in ("reward", "expert_latency_s"):
        columns.put(name, (float(getattr(turn, name)) for turn in turns))
    remarks = {name: [getattr(turn, name) for turn in turns] for name in _REMARKS}
    if any(turn.control for turn in turns):
        remarks["control"] = [turn.control for turn in turns]
    arrays = any(np.ndim(getattr(turn, name)) for turn in turns for name in _ACTIONS)
    plain = not newer and not arrays and "control" not in remarks and not isinstance(episode.last_scene, Picture)
    header = {
        "kind": KIND,
        "format": 1 if plain else FORMAT,
        "scenario": episode.scenario,
        "backend": episode.backend,
        "scenario_config": episode.scenario_config,
        "seed": episode.seed,
        "driver": episode.driver,
        "terminated": bool(episode.terminated),
        "truncated": bool(episode.truncated),
        "summary": episode.summary,
        "observation_keys": keys,
        "turns": remarks,
        "scenes": scenes,
        "columns": columns.index,
    }
    return columns.arrays, header


def _put_shown(columns: Columns, shown: list[Any]) -> dict[str, Any]:
    """Keep scenes, or pictures; returns the JSON-ready rest."""
    return (put_pictures if isinstance(shown[-1], Picture) else put_scenes)(columns, shown)


def _plain(value: Any) -> Any:
    """A NumPy number as a plain one, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be recorded: scenario_config and summary hold plain values only")


def _unpacked(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Episode:
    """Inverse of `_packed`. Raises whatever damaged content leads to."""
    checked = _header(header)
    count, columns = len(checked.turns.controller), Columns(arrays, checked.columns)
    take_shown: Any = take_pictures if "sizes" in checked.scenes else take_scenes
    scenes = take_shown(columns, checked.scenes, count + 1)
    obs = _take_observations(columns, checked.observation_keys, count + 1)
    legal = columns.take_all("legal", count + 1)
    if any(mask.dtype != bool or mask.ndim != 1 for mask in legal):
        raise ValueError("legal: not masks")
    actions = [_action(action) for action in columns.take_all("action", count)]
    rows: dict[str, list[Any]] = {name: columns.take(name, count) for name in _ARRAYS}
    rows |= {name: columns.take_numbers(name, count) for name in ("reaction_s", "reward", "expert_latency_s")}
    kept = [name for name in (*_ACTIONS, *_NEWER) if name in columns.index]
    rows |= {name: [_action(row) for row in columns.take(name, count)] for name in kept}
    proposed = zip(actions, rows["learner_action"], rows["expert_action"], strict=True)
    if any(np.ndim(action) < max(np.ndim(learner), np.ndim(expert)) for action, learner, expert in proposed):
        raise ValueError("a proposal or label is no action")
    rows |= {name: getattr(checked.turns, name) for name in _REMARKS}
    rows["terms"] = rows["terms"] or [None] * count
    rows["control"] = checked.turns.control or [""] * count
    rows |= {"scene": scenes[:-1], "obs": obs[:-1], "legal": legal[:-1], "action": actions}
    turns = tuple(Turn(**dict(zip(rows, values, strict=True))) for values in zip(*rows.values(), strict=True))
    return Episode(
        scenario=checked.scenario,
        backend=checked.backend,
        scenario_config=checked.scenario_config,
        seed=checked.seed,
        driver=checked.driver,
        turns=turns,
        last_scene=scenes[-1],
        last_obs=obs[-1],
        last_legal=legal[-1],
        terminated=checked.terminated,
        truncated=checked.truncated,
        summary=checked.summary,
    )


def _action(row: np.ndarray | None) -> Any:
    """A row as it was kept: a number, an array, or nothing."""
    return row.item() if row is not None and row.ndim == 0 else row


def _take_observations(columns: Columns, keys: list[str] | None, count: int) -> list[Any]:
    if keys is None:
        return columns.take_all("obs0", count)
    parts = [columns.take_all(f"obs{k}", count) for k in range(len(keys))]
    return [dict(zip(keys, values, strict=True)) for values in zip(*parts, strict=True)]


@dataclass(frozen=True)
class _Remarks:
    controller: list[Controller]
    expert_status: list[str | None]
    expert_reason: list[str]
    terms: list[dict[str, float] | None] = field(default_factory=list)
    """Empty in recordings made before there were any."""
    control: list[str] = field(default_factory=list)
    """Empty where no strategy decided."""


@dataclass(frozen=True)
class _Header:
    kind: str
    format: int
    scenario: str
    backend: str
    scenario_config: dict[str, Any]
    seed: int | None
    driver: str
    terminated: bool
    truncated: bool
    summary: dict[str, Any]
    observation_keys: list[str] | None
    turns: _Remarks
    scenes: dict[str, Any]
    columns: dict[str, Any]


def _header(values: dict[str, Any]) -> _Header:
    import pydantic

    return pydantic.TypeAdapter(_Header).validate_python(values)
