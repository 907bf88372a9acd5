"""CARLA behind the contracts of `sim.env`: an adapter for the real client, and its scenarios.

It works with a real server (`backend="carla"`, `"carla@HOST:PORT"`) and with carla-lite, a headless server that it
starts itself (`backend="carla-lite"`). It was tested with the real client against carla-lite, and never against an
Unreal server: see docs/carla.md.
"""
