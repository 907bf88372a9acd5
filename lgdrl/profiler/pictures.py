"""Figures as SVG inside one page: ids are unique in the page, and each picture has a label."""

from __future__ import annotations

import html
import io
import re
from typing import Any

DROPPED = (
    r"<metadata>.*?</metadata>",
    r"<style[^>]*>.*?</style>",  # it would apply to the whole page
    r'\sxmlns(:xlink)?="[^"]*"',
    r'\sversion="[^"]*"',
)
"""Parts of matplotlib's SVG that do not belong into a page."""


class SvgPage:
    """The pictures of one page, numbered in the order in which they are made."""

    def __init__(self) -> None:
        self._count = 0

    def inline(self, figure: Any, label: str) -> str:
        """A figure as an `svg` element.

        Args:
            figure: Of matplotlib.
            label: What it shows, for people who do not see it.
        Returns:
            Markup without document type and without ids that other pictures of the page have.
        """
        self._count += 1
        prefix = f"picture-{self._count}-"
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        text = buffer.getvalue()
        text = text[text.index("<svg") :].strip()
        for pattern in DROPPED:
            text = re.sub(pattern, "", text, flags=re.DOTALL)
        text = text.replace("xlink:href=", "href=")
        text = re.sub(r'\bid="', f'id="{prefix}', text)
        text = re.sub(r'href="#', f'href="#{prefix}', text)
        text = re.sub(r"url\(#", f"url(#{prefix}", text)
        return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
