"""Environments: driving scenarios on interchangeable simulators, made by name with `sim.make`."""

from sim.ids import announce
from sim.scenarios import Scenario, get, make, make_driving, make_driving_vec, make_vec, make_vector, registry

__all__ = ["Scenario", "get", "make", "make_driving", "make_driving_vec", "make_vec", "make_vector", "registry"]

announce()
