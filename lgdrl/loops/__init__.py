"""Loops: how a run advances. Online (environments and a learner), and those that methods bring."""
