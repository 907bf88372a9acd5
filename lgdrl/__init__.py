"""LGDRL: learning to drive from expert guidance, then driving alone."""

import sim.ids  # noqa: F401 - registers the gymnasium ids

__version__ = "0.1.0"
