"""Policies in zips of Stable-Baselines3, read as tensors and text: the pickles inside them are never loaded.

SB3 writes the weights of a policy as tensors (`policy.pth`), and everything else into `data`, JSON in which each object
is a pickle beside a printed form of its attributes. Spaces, policy class and network options are read from the printed
form, which says enough for SB3's own policies. Where it does not, `--trust` has SB3 load the zip, pickles included.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces

from sim.errors import UsageError
from sim.spaces import space_from_json
from sim.trust import trusted

ALGORITHMS = ("a2c", "ddpg", "dqn", "ppo", "sac", "td3")
"""Packages of Stable-Baselines3 whose models can be loaded; the class has the same name in capitals."""
OPTIONS = frozenset(
    {
        "clip_mean",
        "full_std",
        "log_std_init",
        "n_critics",
        "net_arch",
        "normalize_images",
        "ortho_init",
        "share_features_extractor",
        "squash_output",
        "use_expln",
        "use_sde",
    }
)
"""Options of SB3's policies that are numbers, or lists and mappings of them."""
CLASSES = {
    "activation_fn": ("torch.nn.modules.activation", "Module"),
    "features_extractor_class": ("stable_baselines3.common.torch_layers", "BaseFeaturesExtractor"),
}
"""Options of SB3's policies that are classes: the module that they are taken from, and what they inherit from."""
NOT_NEEDED = ("optimizer_class", "optimizer_kwargs", "n_quantiles")
LARGEST_TEXT, LARGEST_WEIGHTS = 64 << 20, 4 << 30
"""Bytes of `data` and of `policy.pth` that are read."""


def load_zip(path: Path) -> Any:
    """A policy or model that one of SB3's own algorithms saved: has `predict` and its spaces.

    Args:
        path: The zip.
    Raises:
        UsageError: It cannot be read, is of no algorithm of Stable-Baselines3, or needs `--trust`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(_member(archive, "data", LARGEST_TEXT))
            weights = _member(archive, "policy.pth", LARGEST_WEIGHTS)
        name = _algorithm(path, about)
    except (OSError, KeyError, ValueError, RecursionError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{str(path)!r} is no model of Stable-Baselines3 ({type(error).__name__})") from None
    if trusted():
        return _loaded_by_sb3(path, name)
    return _rebuilt(path, name, about, weights)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if archive.getinfo(name).file_size > most:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _algorithm(path: Path, about: Any) -> str:
    if not isinstance(about, dict) or not isinstance(about.get("policy_class"), dict):
        raise ValueError("no policy class")
    module = str(about["policy_class"].get("__module__", ""))
    name = module.removeprefix("stable_baselines3.").partition(".")[0]
    if name == "common":  # PPO and A2C share their policies
        name = "ppo" if "clip_range" in about else "a2c"
    if not module.startswith("stable_baselines3.") or name not in ALGORITHMS:
        raise UsageError(f"{str(path)!r} holds a policy of {module!r:.200}: known are {', '.join(ALGORITHMS)}")
    return name


def _loaded_by_sb3(path: Path, name: str) -> Any:
    algorithm = getattr(importlib.import_module(f"stable_baselines3.{name}"), name.upper())
    try:
        return algorithm.load(path, device="cpu")
    except Exception as error:  # a pickle raises what it likes
        raise UsageError(f"{str(path)!r} cannot be loaded by Stable-Baselines3 ({type(error).__name__})") from None


def _rebuilt(path: Path, name: str, about: Mapping[str, Any], weights: bytes) -> Any:
    import torch
    from stable_baselines3.common.policies import BasePolicy

    try:
        kind = _policy_class(name, about["policy_class"], BasePolicy)
        policy = kind(_space(about["observation_space"]), _space(about["action_space"]), _no_rate, **_options(about))
        policy.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
    except Exception as error:  # damaged or foreign content raises almost anything
        words = str(error).strip().splitlines() or [""]
        raise UsageError(
            f"{str(path)!r} cannot be rebuilt from its tensors and text ({type(error).__name__}: {words[0]:.120}): it "
            "is damaged, or needs the pickles inside it; give --trust only if you trust its author"
        ) from None
    policy.set_training_mode(False)
    return policy


def _no_rate(_: float) -> float:
    return 0.0


def _policy_class(name: str, printed: Mapping[str, Any], base: type) -> Any:
    """SB3's own policy class; its name is in the printed form of its methods: `<function NAME.__init__ at ...>`."""
    found = re.match(r"<function (\w+)\.__init__ at", str(printed["__init__"]))
    module = importlib.import_module(
        "stable_baselines3.common.policies" if name in ("ppo", "a2c") else f"stable_baselines3.{name}.policies"
    )
    if found is None or printed["__module__"] != module.__name__:
        raise ValueError("the policy class is not one of Stable-Baselines3")
    return _inheriting(getattr(module, found.group(1)), base)


def _inheriting(found: Any, base: type) -> type:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{found!r:.80} is no {base.__name__}")
    return found


def _space(printed: Mapping[str, Any]) -> spaces.Space:
    kind = printed[":type:"]
    if "discrete.Discrete'" in kind:
        return space_from_json({"type": "discrete", "n": printed["n"], "start": printed["start"]})
    if "box.Box'" not in kind:
        raise ValueError(f"spaces of {kind}")
    bounds = {name: _printed_numbers(printed[name]) for name in ("low", "high")}
    return space_from_json({"type": "box", "dtype": printed["dtype"], "shape": printed["_shape"], **bounds})


def _printed_numbers(text: str) -> Any:
    """The numbers of a printed array; one for all of them where it is too long to be printed whole."""
    numbers = [float(word) for word in re.sub(r"[\[\],]|\.\.\.", " ", text).split()]
    if "..." not in text:
        return numbers
    if len(set(numbers)) != 1:
        raise ValueError("the bounds of a space are not printed whole")
    return numbers[0]


def _options(about: Mapping[str, Any]) -> dict[str, Any]:
    """The policy's options; a class among them is taken from SB3 or torch by its printed name."""
    found: dict[str, Any] = {}
    for option, value in about.get("policy_kwargs", {}).items():
        if option.startswith(":") or option in NOT_NEEDED:
            continue
        if option in CLASSES:
            known, base = CLASSES[option]
            module, _, name = str(value).removeprefix("<class '").removesuffix("'>").rpartition(".")
            if module != known:
                raise ValueError(f"{option} = {value}")
            source = importlib.import_module(module)
            found[option] = _inheriting(getattr(source, name), getattr(source, base))
        elif option in OPTIONS and not isinstance(value, str):
            found[option] = value
        else:
            raise ValueError(f"policy option {option}")
    return found
