"""LGDRL: learning to drive from expert guidance, then driving alone."""

__version__ = "0.1.0"
