"""CARLA behind this platform's contracts: an adapter for the real client, and its scenarios.

It drives a real server (`backend="carla"`, `"carla@HOST:PORT"`) and carla-lite, a headless one that it starts itself
(`backend="carla-lite"`). Everything here was tested with the real client against carla-lite, nothing of it against an
Unreal server: see docs/carla.md.
"""
