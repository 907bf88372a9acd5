"""The batched engine: highway-env's worlds as arrays and compiled kernels, equal to highway-env bit for bit.

`rng` and `physics` hold the scalar functions that every family shares; a family (`lane_change`) adds its state layout
and its kernels; `world` is the native batched interface, `vec` and `single` put it behind SB3's VecEnv and
gymnasium.Env.
"""
