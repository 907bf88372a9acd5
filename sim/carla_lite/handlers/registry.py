"""Registration of request handlers under the names of their calls.

A handler takes the server and the arguments of the call. Any exception becomes the client's error: arguments of any
shape can come from a client, and the server must survive them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sim.carla_lite import codec
from sim.carla_lite.actors import CallRefused
from sim.carla_lite.handlers.context import ServerContext
from sim.errors import UsageError

log = logging.getLogger("carla-lite")
Function = Callable[..., Any]
"""(server, *arguments) -> result; raises CallRefused or UsageError."""
Handler = Callable[..., codec.Wire]
"""(server, *arguments) -> response in wire form; never raises."""


class Handlers(dict[str, Handler]):
    """Handlers by name of the call, for one subject."""

    def returns(self, *names: str) -> Callable[[Function], Function]:
        """Register a handler whose call has a result.

        Args:
            names: Names of the calls; the function's own name where none is given.

        Returns:
            A decorator that leaves the function as it is.
        """
        return self._register(names, codec.value, codec.failure)

    def acts(self, *names: str) -> Callable[[Function], Function]:
        """Register a handler whose call has no result.

        Args:
            names: Names of the calls; the function's own name where none is given.

        Returns:
            A decorator that leaves the function as it is.
        """
        return self._register(names, lambda _: codec.DONE, codec.refusal)

    def _register(
        self, names: tuple[str, ...], success: Callable[[Any], codec.Wire], error: Callable[[str], codec.Wire]
    ) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            for call in names or (function.__name__,):
                self[call] = _guarded(call, function, success, error)
            return function

        return register


def _guarded(
    call: str, function: Function, success: Callable[[Any], codec.Wire], error: Callable[[str], codec.Wire]
) -> Handler:
    def handle(server: ServerContext, *arguments: Any) -> codec.Wire:
        try:
            return success(function(server, *arguments))
        except (CallRefused, UsageError) as refusal:
            return error(str(refusal))
        except Exception as problem:  # see the module docstring
            log.warning("call %r with %d arguments failed: %r", call, len(arguments), problem)
            return error(f"carla-lite cannot carry out '{call}': {problem}")

    return handle
