"""Hypothesis draws the same examples in every run; `pytest --hypothesis-profile=explore` looks for new ones.

Ctrl-C reaches the programs that tests start even where the process that runs the tests ignores it, as in background
jobs.
"""

import signal

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile("fixed")

signal.signal(signal.SIGINT, signal.default_int_handler)
