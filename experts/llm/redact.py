"""Secrets out of texts: the API key and passwords must not reach messages, logs, caches or recordings, in any form."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote

REDACTED = "[redacted]"
SHORTEST = 4
"""Characters of a secret that is cut out; shorter ones would cut words to pieces."""
SHORTEST_ENCODED = 8
"""Characters of a secret's base64 that are cut out."""
PLACEHOLDERS = frozenset({
    "none", "null", "empty", "dummy", "test", "fake", "local", "ollama", "unused", "token", "anything", "lm-studio",
    "not-needed", "no-key", "sk-no-key-required",
})  # fmt: skip
"""Words that stand for no key; they may well be part of an answer."""
BEGINNING = 8
"""First characters of a long key by which a part of it is recognised."""
ENTITIES = {'"': ("quot",), "'": ("apos",), "&": ("amp",), "<": ("lt",), ">": ("gt",)}
"""Names of letters in HTML."""
LOGGERS = ("openai", "httpx2", "httpcore2")
"""The libraries through which secrets pass, and whose records may show them."""


def redactor(*secrets: str) -> Callable[[str], str]:
    """A function that cuts secrets out of a text and makes it storable anywhere (no lone surrogates).

    Args:
        secrets: The API key, passwords; empty ones count for nothing.

    Returns:
        text -> text without any form of the secrets (literal, in another case, with any of their letters escaped as in
        Python, JSON, URLs or HTML, in hexadecimal, in base64), without the longer parts of a key from its beginning,
        and without anything that looks like a key.
    """
    known = {unquote(each) for each in secrets} | set(secrets)
    known = {each for each in known if len(each) >= SHORTEST and each.lower() not in PLACEHOLDERS}
    patterns = [form for secret in sorted(known, key=len, reverse=True) for form in _patterns(secret)]
    pattern = re.compile("|".join([*patterns, r"\bsk-[A-Za-z0-9_*-]{8,}"]), re.IGNORECASE)

    def redact(text: str) -> str:
        return pattern.sub(REDACTED, text).encode("utf-8", "replace").decode()

    return redact


def _patterns(secret: str) -> Iterator[str]:
    """Regular expressions for the ways in which a secret may be written."""
    yield "".join(map(_letter, secret))
    if len(secret) >= 2 * BEGINNING:
        yield "".join(map(_letter, secret[:BEGINNING])) + r"[\w*.…-]*"
    yield re.escape(secret.encode().hex())
    yield from map(re.escape, _base64_forms(secret.encode()))


def _letter(letter: str) -> str:
    """A regular expression for one letter, as it is or escaped, also several times."""
    number = ord(letter)
    octets = "".join(f"%(?:25){{0,4}}{byte:02x}" for byte in letter.encode())
    names = "".join(f"|&(?:amp;){{0,4}}{name};" for name in ENTITIES.get(letter, ()))
    escapes = rf"\\{{1,8}}(?:x|u00|u\{{0{{0,4}}){number:02x}\}}?"
    escapes += rf"|&(?:amp;){{0,4}}#(?:x0{{0,4}}{number:x}|0{{0,4}}{number});{names}"
    return rf"(?:\\{{0,8}}{re.escape(letter)}|{octets}|{escapes})"


def _base64_forms(secret: bytes) -> Iterator[str]:
    """What base64 makes of a secret, wherever it stands in the encoded text: without the letters shared with others."""
    for before in range(3):
        bits = 8 * len(secret)
        skipped = -(-8 * before // 6)
        encoded = base64.b64encode(b"\0" * before + secret).decode()
        inner = encoded[skipped : (8 * before + bits) // 6]
        if len(inner) >= SHORTEST_ENCODED:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


class SecretFilter(logging.Filter):
    """Takes secrets out of the records of the libraries that send requests, until it is removed."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """Begin at once.

        Args:
            redact: See `redactor`.
        """
        super().__init__()
        self._redact = redact
        names = [name for name in list(logging.root.manager.loggerDict) if name.split(".")[0] in LOGGERS]
        self._loggers = [logging.getLogger(name) for name in names]  # a filter does not hold for a logger's children
        for logger in self._loggers:
            logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record; it is always kept."""
        message = record.getMessage()
        clean = self._redact(message)
        if clean != message:
            record.msg, record.args = clean, None
        return True

    def remove(self) -> None:
        """Leave the loggers as they were."""
        for logger in self._loggers:
            logger.removeFilter(self)
