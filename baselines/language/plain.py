"""The methods without an expert beside the model: imitation, reinforcement learning (GRPO), and one after the other."""

from __future__ import annotations

from baselines.language.method import token_method
from baselines.language.options import TokenOptions
from baselines.language.sft import SFTConfig
from baselines.language.strategy import TokenSettings, TokenStrategy


def _grpo(options: TokenOptions, settings: TokenSettings) -> TokenStrategy:
    return TokenStrategy()


SFT = token_method("sft", "language model: imitation of the traces alone", TokenOptions(), None)
GRPO = token_method(
    "grpo",
    "language model: reinforcement learning from scratch",
    TokenOptions(sft=SFTConfig(num_train_epochs=0)),
    _grpo,
)
SFT_GRPO = token_method("sft-grpo", "language model: imitation, then reinforcement learning", TokenOptions(), _grpo)
