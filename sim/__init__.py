"""Worlds: driving scenarios on interchangeable simulators behind one door, `sim.make`."""

from sim.scenarios import Scenario, get, make, make_vec, make_vector, registry

__all__ = ["Scenario", "get", "make", "make_vec", "make_vector", "registry"]
