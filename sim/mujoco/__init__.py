"""MuJoCo's environments of gymnasium as scenarios, `mujoco:Hopper-v5`: exact state, roll-outs, pictures off screen."""
