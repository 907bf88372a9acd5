"""What makes a training start sooner."""

from __future__ import annotations

import sys

import torch

DECORATED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
"""Methods of torch's optimizers that import `torch._dynamo` when they are first called."""


def spare_dynamo() -> None:
    """Let torch's optimizers work without `torch._dynamo`: its import takes two seconds, and only compiling needs it.

    torch wraps the methods of `DECORATED` so that `torch.compile` leaves them alone, and keeps the wrapper in an
    attribute. Here the attribute is the method itself. Where dynamo is imported already, nothing is changed.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in DECORATED:
        function = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if function is not None:
            function.__dict__.setdefault("__dynamo_disable", function)
