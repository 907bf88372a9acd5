"""Dynamic action interpolation (DAI-style, as specified here): see `strategy`."""
