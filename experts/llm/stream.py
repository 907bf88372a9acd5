"""An answer that arrives in pieces, put together into the body that the same answer has in one piece.

Format: server-sent events as OpenAI-compatible endpoints write them, `chat.completion.chunk` objects in `data:` lines,
usage in a last one without choices, then `data: [DONE]`. `experts.llm.completion.read_completion` reads the result.
"""

from __future__ import annotations

import json
from typing import Any

from experts.llm.completion import read_parts, read_thought


class Draft:
    """A completion as far as it has arrived. Fed with bytes cut anywhere, it always comes to the same."""

    def __init__(self) -> None:
        self.done = False
        """The endpoint has said that nothing follows."""
        self.events = 0
        """Events so far; 0 at the end of a body: the endpoint has answered in one piece."""
        self._line = b""
        self._data: list[bytes] = []
        self._begun = False
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._thought: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._tokens: list[Any] = []
        self._finish_reason: str | None = None
        self._rest: dict[str, Any] = {}

    def feed(self, part: bytes) -> None:
        """Take the next bytes. ValueError, with a line to show, for an event that is broken or reports an error."""
        *lines, self._line = (self._line + part).split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line.removeprefix(b"data:"))
            elif not line and self._data:
                self._event(b"\n".join(self._data).strip())
                self._data = []

    @property
    def complete(self) -> bool:
        """Whether the answer has reached its end."""
        return self.done or self._finish_reason is not None

    @property
    def text(self) -> str:
        """The answer so far: its function calls where it has any, else its content."""
        return "\n".join("".join(call) for _, call in sorted(self._calls.items())) or "".join(self._content)

    def body(self) -> dict[str, Any]:
        """What the endpoint would have sent in one piece."""
        message: dict[str, Any] = {"content": "".join(self._content), "refusal": "".join(self._refusal) or None}
        message["reasoning_content"] = "".join(self._thought)
        if self._calls:
            calls = [{"function": {"arguments": "".join(call)}} for _, call in sorted(self._calls.items())]
            message["tool_calls"] = calls
        choice = {"message": message, "finish_reason": self._finish_reason, "logprobs": {"content": self._tokens}}
        return {**self._rest, "choices": [choice] if self._begun else []}

    def _event(self, data: bytes) -> None:
        if self.done or not data:
            return
        self.events += 1
        if data == b"[DONE]":
            self.done = True
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise ValueError("an event of the stream is not JSON") from None
        if not isinstance(chunk, dict):
            raise ValueError("an event of the stream is not an object")
        if chunk.get("error"):
            raise ValueError(f"the endpoint broke off: {json.dumps(chunk['error'])[:200]}")
        self._rest |= {name: chunk[name] for name in ("usage", "system_fingerprint") if chunk.get(name)}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                self._piece(choice)

    def _piece(self, choice: dict[str, Any]) -> None:
        self._begun = True
        delta, logprobs = choice.get("delta"), choice.get("logprobs")
        delta = delta if isinstance(delta, dict) else {}
        content = read_parts(delta.get("content"))
        self._content.append(content.text)
        self._thought.append(read_thought(delta) or content.thought)
        self._refusal.append(delta["refusal"] if isinstance(delta.get("refusal"), str) else content.refusal)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            self._call(call)
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        self._tokens += tokens if isinstance(tokens, list) else []
        if isinstance(choice.get("finish_reason"), str):
            self._finish_reason = choice["finish_reason"]

    def _call(self, call: Any) -> None:
        number = call.get("index", 0) if isinstance(call, dict) else None
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(number, int) and isinstance(arguments, str):
            self._calls.setdefault(number, []).append(arguments)
