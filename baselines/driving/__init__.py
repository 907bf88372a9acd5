"""Driving as a language: scenes to reason about, plans checked by the simulator, experts that write verified traces."""
