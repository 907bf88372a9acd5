"""A chat endpoint that fails in every way we know, repeatably: by a script, or by a seeded mix of faults.

`FaultServer(script=[...])` serves one behaviour per request, the last one for ever after.
`FaultServer(mix=read_mix("full"), seed=3)` draws each request's fate from a hash of its messages.
Both speak real TCP; `url` is the base URL for any client.
"""

from experts.serving.fault_server.mix import MIXES, SHARES, Fate, FaultMix, read_mix
from experts.serving.fault_server.responses import ALL_RUNGS, Scripted, Seen
from experts.serving.fault_server.server import FaultServer

__all__ = ["ALL_RUNGS", "MIXES", "SHARES", "Fate", "FaultMix", "FaultServer", "Scripted", "Seen", "read_mix"]
