"""The batched engine: highway-env's environments as arrays and compiled kernels, equal to highway-env bit for bit.

That is a highway-env whose NumPy and BLAS are held to unfused functions; on other settings it rounds differently itself
(`lgdrl bench sim --parity` shows both).

`batch` is the native batched interface, which `vec`, `vector` and `single` put behind SB3's VecEnv, gymnasium's
VectorEnv and gymnasium.Env. `families` holds one file per family of environments: how episodes start, what is rewarded,
when they end, what is covered. What families share lies beside it: `episode` (statistics of a running episode), `rng`,
and for roads of highway-env `roads` (lanes as a table), `bodies`, `neighbours`, `traffic`, `contacts`, `observe`,
`views`, `road` (one decision) and `road_batch`.
"""
