"""Learners: one file each, Stable-Baselines3 algorithms whose data an expert may guide."""
