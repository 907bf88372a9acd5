"""The guidance log of a run, in SQLite: every query to an expert, what came of it, and scenes to look at again.

    queries   episode and step, whose advice, how it came about and what it cost; what the learner proposed, what was
              executed, who drove, the reward, and the outcome where the episode ended
    texts     prompts of language models and their responses, each pair once
    chunks    up to `CHUNK` scenes with legal actions and distributions, as the arrays of an .npz
    moments   where a query's scene is: chunk and place in it

A query is kept once both are known: what the expert said (`add`, or `expect` and later `answer` where the run does not
wait), and what was done (`settle`, after the step).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from experts.data.columns import Columns, pack, put_scenes, take_scenes, unpack
from experts.data.episodes import Controller, Episode, Turn
from experts.llm.decision import LLMDecision
from experts.provider import Decision
from lgdrl.guidance.records import Execution, Reason, StepContext
from sim.errors import UsageError
from sim.files import set_aside
from sim.scene import Scene

CHUNK = 64
"""Scenes that are compressed together: they share their road, and most of what is said about their vehicles."""
PERSON = "human"
"""Name of a person among the experts, and as a controller."""
QUERIES = {
    "id": "INTEGER PRIMARY KEY",
    "episode": "INTEGER",
    "step": "INTEGER",
    "action": "INTEGER",
    "status": "TEXT",
    "confidence": "REAL",
    "latency_s": "REAL",
    "tokens": "INTEGER",
    "cost": "REAL",
    "reason": "TEXT",
    "text": "TEXT",
    "expert": "TEXT",
    "learner": "INTEGER",
    "executed": "INTEGER",
    "controller": "TEXT",
    "authority": "REAL",
    "control": "TEXT",
    "reward": "REAL",
    "outcome": "TEXT",
}
ARRAYS = ("legal", "learner_probs", "expert_probs")
LAST = "last query"
"""How an episode of the log ends, where the expert was not asked at its end."""


@dataclass(slots=True)
class Query:
    """A query of which something is not known yet."""

    id: int
    env: int
    episode: int
    step: int
    expert: str
    scene: Scene | None
    said: tuple[Any, ...] | None = None
    """Columns `action` to `text`; None while it is not answered."""
    probs: np.ndarray | None = None
    done: tuple[Any, ...] | None = None
    """Columns from `learner` on; None before the step."""
    arrays: tuple[np.ndarray, np.ndarray] | None = None
    """Legal actions and the learner's policy, where the scene is kept."""


class GuidanceLog:
    """The log of a run that trains.

    A file that is damaged is set aside and another one begun: a training does not depend on its log.

    Args:
        path: The file.
        scenes_every: The scenes of every how many episodes are kept (0: none, see `wants`).
    Raises:
        UsageError: The file can neither be used nor set aside.
    """

    def __init__(self, path: Path, scenes_every: int = 0) -> None:
        self.lost = ""
        """What damage has cost, in one line; empty where nothing was lost."""
        try:
            self._db = _opened(path)
        except sqlite3.Error as error:
            if not os.path.lexists(path):
                raise UsageError(f"cannot write the guidance log {str(path)!r}: {error}") from None
            aside = set_aside(path)
            for rest in (path.with_name(path.name + end) for end in ("-wal", "-shm")):
                rest.unlink(missing_ok=True)
            self._db = _opened(path)
            self.lost = f"the guidance log is damaged ({error}): it is kept as {aside.name}, and a new one begins"
        self.scenes_every = scenes_every
        self.last_row = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM queries").fetchone()[0]
        self._open: list[Query] = []
        self._chunk: list[tuple[int, Scene, tuple[np.ndarray | None, ...]]] = []

    def wants(self, episodes: np.ndarray) -> np.ndarray:
        """bool (R,): whether the scenes of these episodes are kept, though they would have to be made for it."""
        return episodes % self.scenes_every == 0 if self.scenes_every else np.zeros(len(episodes), bool)

    def add(
        self,
        expert: str,
        envs: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
        decisions: Sequence[Decision],
        scenes: Sequence[Scene | None],
    ) -> None:
        """Append one query per decision, made in environment envs[k], step steps[k] of episode episodes[k]."""
        self.answer(self.expect(expert, envs, episodes, steps, scenes), decisions)

    def expect(
        self,
        expert: str,
        envs: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
        scenes: Sequence[Scene | None],
    ) -> list[Query]:
        """Queries without their answers, for `answer`."""
        rows = zip(envs.tolist(), episodes.tolist(), steps.tolist(), scenes, strict=True)
        found = [
            Query(self.last_row + k, env, episode, step, expert, scene if self.scenes_every else None)
            for k, (env, episode, step, scene) in enumerate(rows, 1)
        ]
        self.last_row += len(found)
        self._open += found
        return found

    def answer(self, queries: Sequence[Query], decisions: Sequence[Decision]) -> None:
        """What the expert said to `queries`."""
        for query, decision in zip(queries, decisions, strict=True):
            action = None if decision.action is None else _action(decision.action)
            spent = (decision.confidence, decision.latency_s, decision.tokens, decision.cost, decision.reason)
            query.said = (action, decision.status.value, *spent, self._keep_text(decision))
            query.probs = decision.probs
        self._write([query for query in queries if query.done is not None])

    def settle(self, context: StepContext, execution: Execution, rewards: np.ndarray, infos: Sequence[dict]) -> None:
        """The decision for which queries were added has been made.

        Args:
            context: What was known.
            execution: What was done.
            rewards: float (N,)
            infos: One dict per environment; `outcome` where its episode ended.
        """
        if not self._open:
            return
        for query in self._open:
            i = query.env
            reason = Reason(execution.reason[i])
            controller = PERSON if reason == Reason.PERSON else "expert" if execution.intervened[i] else "learner"
            control = float(execution.authority[i]), reason.name.lower()
            came = (float(rewards[i]), infos[i].get("outcome"))
            done = (context.proposals[i], execution.actions[i])
            query.done = (*(_action(action) for action in done), controller, *control, *came)
            if query.scene is not None and context.legal is not None and context.policy.probs is not None:
                query.arrays = (context.legal[i].copy(), context.policy.probs[i].copy())
        self._write([query for query in self._open if query.said is not None])
        self._open.clear()

    def _write(self, queries: Sequence[Query]) -> None:
        rows = []
        for query in queries:
            assert query.said is not None
            assert query.done is not None
            rows.append((query.id, query.episode, query.step, *query.said, query.expert, *query.done))
            if query.scene is not None and query.arrays is not None:
                self._chunk.append((query.id, query.scene, (*query.arrays, query.probs)))
        self._db.executemany(f"INSERT INTO queries ({', '.join(QUERIES)}) VALUES ({_marks(QUERIES)})", rows)
        if len(self._chunk) >= CHUNK:
            self._write_chunk()

    def _write_chunk(self) -> None:
        queries, scenes, arrays = zip(*self._chunk, strict=True)
        columns = Columns()
        rest = put_scenes(columns, scenes)
        for name, rows in zip(ARRAYS, zip(*arrays, strict=True), strict=True):
            columns.put(name, rows)
        content = pack(columns.arrays, {"count": len(scenes), "scenes": rest, "columns": columns.index})
        chunk = self._db.execute("INSERT INTO chunks (scenes) VALUES (?)", (content,)).lastrowid
        rows_of_moments = [(query, chunk, place) for place, query in enumerate(queries)]
        self._db.executemany("INSERT INTO moments VALUES (?, ?, ?)", rows_of_moments)
        self._chunk.clear()

    def _keep_text(self, decision: Decision) -> str | None:
        """Store prompt and response of a language model, each pair once; returns its hash."""
        if not isinstance(decision, LLMDecision) or decision.prompt is None:
            return None
        prompt, answer = decision.prompt, decision.answer
        key = hashlib.sha256(f"{prompt}\0{answer}".encode()).hexdigest()[:16]
        self._db.execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", (key, prompt, answer))
        return key

    def truncate(self, last_row: int) -> None:
        """Drop what was written after row `last_row`, which was the last one at some `commit`."""
        self._db.execute("DELETE FROM queries WHERE id > ?", (last_row,))
        self._db.execute("DELETE FROM moments WHERE query > ?", (last_row,))
        self._db.execute("DELETE FROM chunks WHERE id NOT IN (SELECT chunk FROM moments)")
        self._db.commit()
        self.last_row = last_row
        missing = last_row - self._db.execute("SELECT COUNT(*) FROM queries").fetchone()[0]
        if missing > 0:
            lost = f"{missing:,} of the {last_row:,} queries so far are not in the guidance log"
            self.lost = f"{self.lost}; {lost}" if self.lost else lost

    def commit(self) -> None:
        """Make durable what was settled."""
        if self._chunk:
            self._write_chunk()
        self._db.commit()

    def close(self) -> None:
        self.commit()
        self._db.close()


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a log that is there and whole, or to a new one. sqlite3.Error where it is damaged."""
    # A window trains in a thread of its own; only one thread uses the log at a time.
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        db.execute("PRAGMA trusted_schema=OFF")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(str(found).splitlines()[0])
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"CREATE TABLE IF NOT EXISTS queries ({', '.join(map(' '.join, QUERIES.items()))})")
        db.execute("CREATE TABLE IF NOT EXISTS texts (hash TEXT PRIMARY KEY, prompt TEXT, answer TEXT)")
        db.execute("CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, scenes BLOB)")
        db.execute("CREATE TABLE IF NOT EXISTS moments (query INTEGER PRIMARY KEY, chunk INTEGER, place INTEGER)")
        if [row[1] for row in db.execute("PRAGMA table_info(queries)")] != list(QUERIES):
            raise sqlite3.DatabaseError("it has other columns")
    except BaseException:
        db.close()
        raise
    return db


class LoggedEpisodes:
    """The episodes of a run's training in which an expert was asked, as far as the log has their scenes.

    A turn is a moment at which it was asked; between two of them others may have been decided without it. Args: the
    log's file; how to call the run; scenario, backend and config of its envs. UsageError in one line for a file that
    is no log, or holds no scenes.
    """

    def __init__(self, path: Path, run: str, scenario: str, backend: str, scenario_config: dict[str, Any]) -> None:
        self.path, self.run = path, run
        self.scenario, self.backend, self.scenario_config = scenario, backend, scenario_config
        if not path.exists():
            raise UsageError(f"run {run!r} has no guidance log: its strategy asked no expert")
        try:
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            self.queries = int(self._db.execute("SELECT COUNT(*) FROM queries").fetchone()[0])
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
            found = self._read_moments() if "moments" in tables else []
        except sqlite3.Error as error:
            raise self._damaged(error) from None
        if not found:
            raise UsageError(
                f"the guidance log of run {run!r} holds no scenes of its {self.queries:,} queries: it is of an "
                "older version, or log_scenes was 0; train again to replay them"
            )
        self.moments = len(found)
        """Questions with a scene."""
        self._episodes = [list(rows) for _, rows in itertools.groupby(found, key=lambda row: row["episode"])]
        self._chunk = functools.lru_cache(8)(self._load)

    def _read_moments(self) -> list[dict[str, Any]]:
        """Queries with a scene by episode and step; of two at one step, a person's and an expert's, the expert's."""
        names = [*QUERIES, "chunk", "place"]
        order = "ORDER BY episode, step, expert = 'human', id"
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM queries JOIN moments ON id = query {order}")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [next(same) for _, same in itertools.groupby(found, key=lambda row: (row["episode"], row["step"]))]

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, k: int) -> Episode:
        """The episode that came k-th in training. UsageError where the log is damaged."""
        rows = self._episodes[k]
        try:
            turns = tuple(self._turn(row) for row in rows)
        except Exception as error:  # a damaged page, array or header raises almost anything
            raise self._damaged(error) from None
        last = turns[-1]
        return Episode(
            scenario=self.scenario,
            backend=self.backend,
            scenario_config=self.scenario_config,
            seed=None,
            driver=f"{self.run}, episode {rows[0]['episode']}",
            turns=turns,
            last_scene=last.scene,
            last_obs=last.obs,
            last_legal=last.legal,
            terminated=bool(rows[-1]["outcome"]),
            truncated=False,
            summary={"outcome": rows[-1]["outcome"] or LAST},
        )

    def _turn(self, row: dict[str, Any]) -> Turn:
        scenes, arrays = self._chunk(row["chunk"])
        legal, learner_probs, expert_probs = (arrays[name][row["place"]] for name in ARRAYS)
        return Turn(
            scene=scenes[row["place"]],
            obs=np.zeros(0, np.float32),
            legal=legal,
            action=row["executed"],
            controller=cast(Controller, row["controller"]),
            reward=row["reward"],
            learner_action=row["learner"],
            learner_probs=learner_probs,
            expert_action=row["action"],
            expert_probs=expert_probs,
            expert_status=row["status"],
            expert_reason=row["reason"] or "",
            expert_latency_s=row["latency_s"],
        )

    def _load(self, chunk: int) -> tuple[list[Scene], dict[str, list[Any]]]:
        content = self._db.execute("SELECT scenes FROM chunks WHERE id = ?", (chunk,)).fetchone()[0]
        arrays, header = unpack(content)
        columns, count = Columns(arrays, header["columns"]), header["count"]
        return take_scenes(columns, header["scenes"], count), {name: columns.take(name, count) for name in ARRAYS}

    def _damaged(self, error: Exception) -> UsageError:
        return UsageError(f"the guidance log {str(self.path)!r} is damaged ({type(error).__name__}): train again")

    def close(self) -> None:
        self._db.close()


def _action(action: Any) -> int | str:
    """An action as a column: an id, or the components of a continuous one as JSON."""
    return int(action) if np.ndim(action) == 0 else json.dumps(np.asarray(action, float).tolist())


def _marks(names: Any) -> str:
    return ", ".join("?" * len(names))
