"""The batched engine: highway-env's worlds as arrays and compiled kernels, equal to highway-env bit for bit.

`rng` and `physics` hold the scalar functions that every family shares; a family (`highway`, `lane_change`) adds its
state layout and its kernels; `world` is the native batched interface, which `vec`, `vector` and `single` put behind
SB3's VecEnv, gymnasium's VectorEnv and gymnasium.Env.
"""
