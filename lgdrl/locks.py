"""One folder, one process: a lock on a file in the folder. The system drops it when the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sim.errors import UsageError

LOCK = ".lock"
"""Name of the file; it stays when the lock is released."""


class FolderLock:
    """The right to write into a folder, until `release`.

    Args:
        folder: It is there already.
    Raises:
        UsageError: Another process has the lock, or the folder cannot be locked.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._file: int | None = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no path"
            raise UsageError(f"cannot write into {str(folder)!r:.300}: {reason}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 20).decode("ascii", "replace").strip()
            os.close(self._file)
            if not isinstance(error, BlockingIOError):
                raise UsageError(f"cannot lock {str(folder)!r}: {error.strerror}") from None
            process = f" (process {holder})" if holder.isdigit() else ""
            raise UsageError(
                f"{str(folder)!r} is in use by another run{process}: wait for its end, or choose another folder"
            ) from None
        os.truncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let others write. Further calls do nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
