"""Offline reinforcement learning under a policy constraint, and GORL (GORL-style, as specified here), which guides it.

`bases` holds the algorithms, `guide` the network that weighs their losses, `strategies` the methods.
"""
