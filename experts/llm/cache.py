"""Answers of language models in an SQLite file: the tool that makes a run with a remote model repeatable and cheap.

The key is a hash of everything that the answer depends on: model, prompt version, sampling parameters, rung and full
prompt. Prompts and answers are stored once. Several processes may share a file (write-ahead log, busy time-out); the
first answer stored under a key stays. Replay-only mode opens the file read-only, and its user opens no socket.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experts.llm.budget import Usage
from experts.llm.completion import Completion, dump_completion, load_completion
from experts.llm.ladder import Rung
from sim.errors import UsageError

Mode = Literal["off", "read-write", "replay-only"]
SCHEMA_VERSION = 1
BUSY_S = 30.0
"""Seconds to wait for another process's write."""

_TABLES = """
CREATE TABLE IF NOT EXISTS prompts (hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, prompt TEXT NOT NULL REFERENCES prompts(hash), model TEXT NOT NULL, version TEXT NOT NULL,
    rung TEXT NOT NULL, sampling TEXT NOT NULL, answer TEXT NOT NULL, fingerprint TEXT NOT NULL,
    input INTEGER, cached INTEGER, output INTEGER, created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rungs (
    model TEXT NOT NULL, version TEXT NOT NULL, rung TEXT NOT NULL, choice INTEGER NOT NULL,
    PRIMARY KEY (model, version)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class CachedQuery:
    """What an answer depends on."""

    model: str
    version: str
    """Prompt version: template and flags."""
    sampling: Mapping[str, Any]
    rung: Rung
    prompt: str

    @property
    def key(self) -> str:
        """64 hex digits, the same on every machine."""
        parts = [self.model, self.version, dict(self.sampling), str(self.rung), self.prompt]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredCompletion:
    """A stored answer; `usage` is None where the endpoint reported none."""

    completion: Completion
    usage: Usage | None
    fingerprint: str = ""
    """The endpoint's `system_fingerprint`: a changed one means that the model changed."""


class AnswerCache:
    """Answers by query. Thread-safe; one connection per object, so make one per process."""

    def __init__(self, path: Path, mode: Mode = "read-write") -> None:
        """Open or create the file. UsageError when it is unreadable, no such cache, or missing in replay-only mode."""
        self.path, self.mode = path, mode
        self._lock = threading.Lock()
        if mode == "replay-only" and not path.is_file():
            raise UsageError(f"answer cache {str(path)!r} does not exist: record it first with cache.mode=read-write")
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            raise UsageError(
                f"answer cache {str(path)!r} cannot be used ({error}): restore it, or delete it to start afresh"
            ) from None
        except OSError as error:
            raise UsageError(f"answer cache {str(path)!r} cannot be created: {error.strerror}") from None

    def _open(self) -> sqlite3.Connection:
        if self.mode == "replay-only":
            uri = f"{self.path.resolve().as_uri()}?mode=ro"
            db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, check_same_thread=False)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
        try:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0 and self.mode != "replay-only":
                db.executescript(_TABLES)
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif found != SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"its schema version is {found}, expected {SCHEMA_VERSION}")
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("it is damaged")
            db.execute("SELECT count(*) FROM (SELECT key FROM answers LIMIT 1)").fetchone()
        except sqlite3.Error:
            db.close()
            raise
        return db

    def get(self, query: CachedQuery) -> StoredCompletion | None:
        """The stored answer, None on a miss. sqlite3.Error when the file fails in mid-run."""
        with self._lock:
            row = self._db.execute(
                "SELECT answer, input, cached, output, fingerprint FROM answers WHERE key = ?", (query.key,)
            ).fetchone()
        if row is None:
            return None
        try:
            completion = load_completion(row[0])
        except ValueError:
            raise sqlite3.DatabaseError("a stored answer is damaged") from None
        usage = None if row[1] is None else Usage(*row[1:4])
        return StoredCompletion(completion, usage, row[4])

    def put(self, query: CachedQuery, stored: StoredCompletion) -> None:
        """Store an answer unless there is one. sqlite3.Error when the file fails in mid-run."""
        prompt_hash = hashlib.sha256(query.prompt.encode()).hexdigest()
        usage = (stored.usage.input, stored.usage.cached, stored.usage.output) if stored.usage else (None, None, None)
        sampling = json.dumps(dict(query.sampling), sort_keys=True)
        row = (query.key, prompt_hash, query.model, query.version, str(query.rung), sampling)
        with self._lock, self._db:
            self._db.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", (prompt_hash, query.prompt))
            self._db.execute(
                "INSERT OR IGNORE INTO answers (key, prompt, model, version, rung, sampling, answer, fingerprint,"
                " input, cached, output) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, dump_completion(stored.completion), stored.fingerprint, *usage),
            )

    def recorded_rung(self, model: str, version: str) -> tuple[Rung, bool] | None:
        """Rung and choice flag that a probe found when the answers were recorded."""
        with self._lock:
            row = self._db.execute(
                "SELECT rung, choice FROM rungs WHERE model = ? AND version = ?", (model, version)
            ).fetchone()
        return None if row is None else (Rung(row[0]), bool(row[1]))

    def record_rung(self, model: str, version: str, rung: Rung, choice: bool) -> None:
        """Remember a probe's finding for replays."""
        with self._lock, self._db:
            self._db.execute("INSERT OR REPLACE INTO rungs VALUES (?, ?, ?, ?)", (model, version, str(rung), choice))

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        with self._lock:
            self._db.close()
