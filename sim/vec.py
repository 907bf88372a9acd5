"""`DrivingEnvs`: any `DrivingEnv`s as one `DrivingVecEnv`, in this process or spread over worker processes.

Stable-Baselines3's contract, kept to the letter: a finished environment is reset in the same step without a new seed,
its last observation goes into `terminal_observation`, and `TimeLimit.truncated` tells a time limit from an end. Each
finished episode also reports `episode` (r return, l steps, t seconds since start; what VecMonitor would add) and
`terminal_action_mask` (the actions that were legal in the terminal state, for bootstrapping).
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from sim.actions import batch_of_actions
from sim.env import Branches, DrivingEnv, DrivingVecEnv, ScenarioEnv, ScenarioVecEnv, reset_needed
from sim.errors import UsageError
from sim.scene import Scene

MakeEnv = Callable[[], ScenarioEnv]


@dataclass
class StepResult:
    """Result of one action in one environment; after an end, `obs` and `mask` are those of the next episode."""

    obs: Any
    reward: float
    done: bool
    info: dict[str, Any]
    reset_info: dict[str, Any] | None
    mask: np.ndarray


def _driving(env: ScenarioEnv) -> DrivingEnv:
    assert isinstance(env, DrivingEnv)
    return env


class Share:
    """The environments of one process. Every method takes and returns plain, picklable values, one per environment."""

    def __init__(self, makers: Sequence[MakeEnv]) -> None:
        self.envs = [make() for make in makers]
        self._returns = [0.0] * len(self.envs)
        self._lengths = [0] * len(self.envs)

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict | None]) -> list[tuple[Any, dict, np.ndarray]]:
        started = []
        for i, (env, seed, option) in enumerate(zip(self.envs, seeds, options, strict=True)):
            obs, info = env.reset(seed=seed, options=option or None)
            self._returns[i], self._lengths[i] = 0.0, 0
            started.append((obs, info, env.action_masks()))
        return started

    def step(self, actions: Sequence[Any]) -> list[StepResult]:
        return [self._step(i, action) for i, action in enumerate(actions)]

    def _step(self, i: int, action: Any) -> StepResult:
        env = self.envs[i]
        obs, reward, terminated, truncated, info = env.step(action)
        reward, done, reset_info = float(reward), terminated or truncated, None
        self._returns[i] += reward
        self._lengths[i] += 1
        info["TimeLimit.truncated"] = truncated and not terminated
        if done:
            info["terminal_observation"] = obs
            info["terminal_action_mask"] = env.action_masks()
            info["episode"] = {"r": self._returns[i], "l": self._lengths[i]}
            self._returns[i], self._lengths[i] = 0.0, 0
            obs, reset_info = env.reset()
        return StepResult(obs, reward, done, info, reset_info, env.action_masks())

    def masks(self) -> list[np.ndarray]:
        return [env.action_masks() for env in self.envs]

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        return [_driving(self.envs[i]).scene() for i in indices]

    def branch(self, index: int, plans: np.ndarray) -> Branches:
        return _driving(self.envs[index]).branch(plans)

    def get_state(self) -> list[dict[str, Any]]:
        states = []
        for env, total, length in zip(self.envs, self._returns, self._lengths, strict=True):
            states.append({"env": env.get_state(), "return": total, "length": length})
        return states

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        for i, (env, state) in enumerate(zip(self.envs, states, strict=True)):
            env.set_state(state["env"])
            self._returns[i], self._lengths[i] = state["return"], state["length"]

    def about(self) -> dict[str, Any]:
        """What all environments have in common."""
        names = (
            "observation_space",
            "action_space",
            "metadata",
            "scenario",
            "backend",
            "scenario_config",
            "exact_state",
        )
        return {name: getattr(self.envs[0], name) for name in names}

    def render(self) -> list[np.ndarray | None]:
        return [env.render() for env in self.envs]  # type: ignore[misc]

    def has_attr(self, name: str) -> bool:
        return all(hasattr(env, name) for env in self.envs)

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        return [self.envs[i].get_wrapper_attr(name) for i in indices]

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        for i in indices:
            setattr(self.envs[i], name, value)

    def env_method(self, name: str, args: tuple, kwargs: dict, indices: Sequence[int]) -> list[Any]:
        return [self.envs[i].get_wrapper_attr(name)(*args, **kwargs) for i in indices]

    def wrapped(self, wrapper_class: type, indices: Sequence[int]) -> list[bool]:
        return [is_wrapped(self.envs[i], wrapper_class) for i in indices]

    def close(self) -> None:
        for env in self.envs:
            env.close()


class _InProcess:
    """A share in this process."""

    def __init__(self, makers: Sequence[MakeEnv]) -> None:
        self._share = Share(makers)
        self._response: Any = None

    def send(self, method: str, *args: Any) -> None:
        self._response = getattr(self._share, method)(*args)

    def receive(self) -> Any:
        return self._response

    def close(self) -> None:
        self._share.close()


class _InWorker:
    """A share in a worker process."""

    def __init__(self, makers: Sequence[MakeEnv], context: Any) -> None:
        self._sent = 0
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, CloudpickleWrapper(list(makers))), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, method: str, *args: Any) -> None:
        self._sent += 1
        try:
            self._pipe.send((self._sent, method, args))
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None

    def receive(self) -> Any:
        number = 0
        try:
            while number != self._sent:  # after Ctrl-C the response to an older request may still be there
                number, value, error = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._gone() from None
        if error is not None:
            raise error
        return value

    def _gone(self) -> RuntimeError:
        self._process.join(timeout=1)
        return RuntimeError(f"a simulator process died (exit code {self._process.exitcode})")

    def close(self) -> None:
        try:
            self.send("close")
            self.receive()
        except RuntimeError:
            pass  # the process has ended already, which is the purpose of close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
        self._pipe.close()


def _serve(pipe: Connection, makers: CloudpickleWrapper) -> None:
    """Main loop of a worker process: build the share, then carry out requests until "close".

    Ctrl-C is left to the parent process: the environments stay alive, so that a run can be saved before it ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share: Share | None = None
    while True:
        try:
            number, method, args = pipe.recv()
        except EOFError:
            return
        value, error = None, None
        try:
            if share is None:
                share = Share(makers.var)
            value = getattr(share, method)(*args)
        except Exception as caught:
            error = caught
            error.add_note(f"in a simulator process:\n{traceback.format_exc()}")
        try:
            _respond(pipe, number, value, error)
        except BrokenPipeError:
            return
        if method == "close":
            return


def _respond(pipe: Connection, number: int, value: Any, error: Exception | None) -> None:
    """Send the response; one that cannot be pickled becomes an error."""
    try:
        pipe.send((number, value, error))
    except (pickle.PicklingError, TypeError, AttributeError) as failure:
        pipe.send((number, None, RuntimeError(f"a simulator process cannot send {error or type(value)}: {failure}")))


class ScenarioEnvs(ScenarioVecEnv):
    """N driving environments of one scenario, in this process or spread over worker processes."""

    def __init__(self, makers: Sequence[MakeEnv], seed: int | None = None, workers: int = 0) -> None:
        """Build the environments.

        Worker processes are started afresh, so a script that uses them needs the `if __name__ == "__main__":` guard.

        Args:
            makers: `makers[i]()` builds environment i, in its worker process where there are any.
            seed: Environment i starts from seed + i at the first reset; None: from random seeds.
            workers: Number of worker processes; 0: all environments run in this one.
        Raises:
            UsageError: `workers` is negative.
        """
        if workers < 0:
            raise UsageError(f"workers = {workers}: expected 0 (this process) or a number of processes")
        self._closed = False
        self._started = time.time()
        parts = np.array_split(np.arange(len(makers)), min(workers, len(makers)) or 1)
        self._indices: list[list[int]] = [part.tolist() for part in parts]
        shares = [[makers[i] for i in part] for part in self._indices]
        if workers:
            methods = multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
            self._shares: list[_InProcess | _InWorker] = [_InWorker(share, context) for share in shares]
        else:
            self._shares = [_InProcess(shares[0])]
        about = self._all("about")[0]
        self.scenario = about["scenario"]
        self.backend = about["backend"]
        self.scenario_config = about["scenario_config"]
        self.exact_state = about["exact_state"]
        super().__init__(len(makers), about["observation_space"], about["action_space"])
        self.metadata = about["metadata"]
        self._masks: np.ndarray | None = None
        self._waiting = False
        if seed is not None:
            self.seed(seed)

    # -- Stable-Baselines3 ---------------------------------------------------------------------------------------------

    def reset(self) -> Any:
        """Start an episode in every environment, with the seeds set before (used once)."""
        started = self._spread("reset", self._seeds, self._options)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, info, _ in started]
        self._masks = np.stack([mask for _, _, mask in started])
        return self._stack([obs for obs, _, _ in started])

    def step_async(self, actions: np.ndarray) -> None:
        if self._masks is None:
            raise reset_needed("step")
        if isinstance(self.action_space, spaces.Discrete):  # all are checked before any environment moves
            actions = batch_of_actions(actions, self.num_envs, int(self.action_space.n))
        elif len(actions) != self.num_envs:
            raise UsageError(f"{len(actions)} actions: give one to each of {self.num_envs} environments")
        for share, part in zip(self._shares, self._indices, strict=True):
            share.send("step", [actions[i] for i in part])
        self._waiting = True

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        self._waiting = False
        results: list[StepResult] = self._merge(self._responses())
        for i, result in enumerate(results):
            if result.done:
                result.info["episode"]["t"] = round(time.time() - self._started, 6)
            if result.reset_info is not None:
                self.reset_infos[i] = result.reset_info
        self._masks = np.stack([result.mask for result in results])
        return (
            self._stack([result.obs for result in results]),
            np.array([result.reward for result in results], dtype=np.float32),
            np.array([result.done for result in results], dtype=bool),
            [result.info for result in results],
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._waiting:
            self._responses()
        for share in self._shares:
            share.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        return self._merge(self._all("render"))

    def has_attr(self, attr_name: str) -> bool:
        return all(self._all("has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return self._some("get_attr", indices, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self._some("set_attr", indices, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        return self._some("env_method", indices, method_name, method_args, method_kwargs)

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return self._some("wrapped", indices, wrapper_class)

    # -- ScenarioVecEnv ------------------------------------------------------------------------------------------------

    def action_masks(self) -> np.ndarray:
        if self._masks is None:
            raise reset_needed("action_masks")
        return self._masks.copy()

    def reset_to(self, seeds: Sequence[int]) -> Any:
        if len(seeds) != self.num_envs:
            raise UsageError(f"{len(seeds)} seeds for {self.num_envs} environments: give one each")
        self._seeds = [int(seed) for seed in seeds]
        return self.reset()

    def get_state(self) -> dict[str, Any]:
        return {
            "envs": self._merge(self._all("get_state")),
            "seeds": list(self._seeds),
            "reset_infos": list(self.reset_infos),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """As in `DrivingVecEnv`; the number of worker processes may differ. Load only states that you trust."""
        if len(state["envs"]) != self.num_envs:
            raise UsageError(
                f"state of {len(state['envs'])} environments does not fit {self.num_envs}: use the same number"
            )
        self._spread("set_state", state["envs"])
        self._seeds, self.reset_infos = list(state["seeds"]), list(state["reset_infos"])
        self._masks = np.stack(self._merge(self._all("masks")))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _responses(self, shares: Sequence[_InProcess | _InWorker] | None = None) -> list[Any]:
        """The response of each share (None: of all); an error is raised after all have come, so that none is left."""
        responses, errors = [], []
        for share in self._shares if shares is None else shares:
            try:
                responses.append(share.receive())
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return responses

    def _all(self, method: str, *args: Any) -> list[Any]:
        """Responses of all shares to the same request."""
        for share in self._shares:
            share.send(method, *args)
        return self._responses()

    def _spread(self, method: str, *columns: Sequence[Any]) -> list[Any]:
        """Responses to a request with one value per environment in each column, in the order of the environments."""
        for share, part in zip(self._shares, self._indices, strict=True):
            share.send(method, *([column[i] for i in part] for column in columns))
        return self._merge(self._responses())

    def _some(self, method: str, indices: Any, *args: Any) -> list[Any]:
        """Responses of the environments `indices` (None: all; or one number), in that order."""
        wanted = self.existing(indices)
        reached = []
        for share, part in zip(self._shares, self._indices, strict=True):
            mine = [i for i in wanted if i in part]
            if mine:
                share.send(method, *args, [part.index(i) for i in mine])
                reached.append((share, mine))
        found: dict[int, Any] = {}
        responses = self._responses([share for share, _ in reached])
        for (_, mine), values in zip(reached, responses, strict=True):
            found.update(zip(mine, values or [None] * len(mine), strict=True))
        return [found[i] for i in wanted]

    @staticmethod
    def _merge(parts: Iterable[Sequence[Any] | None]) -> list[Any]:
        return [value for part in parts if part is not None for value in part]

    def _stack(self, observations: Sequence[Any]) -> Any:
        """Observations of all environments as one fresh array, or one per key or part."""
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return {key: np.stack([obs[key] for obs in observations]) for key in space.spaces}
        if isinstance(space, spaces.Tuple):
            return tuple(np.stack([obs[i] for obs in observations]) for i in range(len(space.spaces)))
        return np.stack(observations)


class DrivingEnvs(ScenarioEnvs, DrivingVecEnv):
    """N driving environments of one scenario."""

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        return self._some("scenes", indices)

    def branch(self, index: int, plans: np.ndarray) -> Branches:
        number = self.existing(index)[0]
        share, part = next(pair for pair in zip(self._shares, self._indices, strict=True) if number in pair[1])
        share.send("branch", part.index(number), plans)
        return share.receive()
