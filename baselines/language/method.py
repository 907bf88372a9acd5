"""Language-model methods as entries of the registry of all methods (`lgdrl.methods`).

`token_method` makes one of a strategy; with no strategy it is imitation alone. The run's scenario is where the task
takes its situations from; the environments of the run are not used otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from baselines.language.evaluation import greedy_episodes
from baselines.language.loop import ImitationLoop, LanguageLoop, TokenLoop
from baselines.language.options import TokenOptions
from baselines.language.strategy import TokenSettings, TokenStrategy
from baselines.language.task import TextTask
from baselines.language.tasks import TASKS
from experts.human import Hands
from experts.language import gpt
from experts.language.model import LanguageModel
from experts.language.teacher import TokenProvider
from experts.provider import PolicyProvider
from lgdrl.config import RunConfig
from lgdrl.evaluation import Evaluation
from lgdrl.methods import METHODS, Method, Needs
from lgdrl.runs import Run
from sim.config import resolve
from sim.errors import UsageError

BuildStrategy = Callable[[Any, TokenSettings], TokenStrategy]
"""(resolved options, settings) -> strategy"""


@dataclass(frozen=True)
class TokenMethod(Method):
    """A method that trains a language model."""

    build: BuildStrategy | None = None
    """Makes the strategy; None: imitation alone."""
    needs_teacher: bool = False
    """Whether the strategy uses a live teacher of tokens."""

    def loop(
        self,
        task: TextTask,
        model: LanguageModel,
        options: Any,
        seed: int,
        total: int,
        teacher: TokenProvider | None = None,
    ) -> LanguageLoop:
        """A loop over a task and a model that are there already.

        Args:
            task: Prompts and verifier.
            model: The student; trained in place, so give a copy of one that others start from too.
            options: Resolved options of this method.
            seed: Of the run.
            total: Updates of the whole run.
            teacher: The live teacher.
        Raises:
            UsageError: The method needs a teacher and there is none; task, model and teacher do not fit together.
        """
        build = self.build
        if build is None:
            return ImitationLoop(task, model, options, seed, total)
        if self.needs_teacher and teacher is None:
            raise UsageError(f"strategy {self.name!r} needs a teacher of the task's vocabulary: give it one")
        return TokenLoop(task, model, lambda settings: build(options, settings), options, seed, total, teacher)


def token_method(
    name: str,
    summary: str,
    defaults: TokenOptions,
    build: BuildStrategy | None,
    needs_teacher: bool = False,
) -> TokenMethod:
    """A method that trains a language model on a text task.

    Args:
        name: Its name on the command line and in configs.
        summary: One line for `lgdrl list`.
        defaults: Its options.
        build: Makes the strategy; None: imitation alone.
        needs_teacher: Whether the strategy uses a live teacher of tokens.
    """

    def make(
        config: RunConfig, run: Run, provider: PolicyProvider | None = None, hands: Hands | None = None
    ) -> LanguageLoop:
        options = _options(config, defaults)
        if hands is not None:
            raise UsageError(f"strategy {name!r} trains a language model: a person cannot take over")
        task = make_task(options, config)
        model = gpt.new(sized(options, task), config.seed)
        teacher = TASKS.get(options.task).teacher(task, options.teacher) if needs_teacher else None
        return method.loop(task, model, options, config.seed, config.steps, teacher)

    def check(config: RunConfig, provider: PolicyProvider | None) -> None:
        options = _options(config, defaults)
        unused = {
            "demonstrations": config.demonstrations is not None,
            "label_budget": config.label_budget is not None,
            "label_lag": config.label_lag > 0,
            "shield": config.shield,
        }
        given = [option for option, is_given in unused.items() if is_given]
        if given:
            raise UsageError(
                f"{given[0]}: strategy {name!r} trains a language model and has no use for it; leave it out"
            )
        kind = TASKS.get(options.task)
        kind.check(resolve(kind.defaults, options.task_options, "strategy_options.task_options"), config)

    method = TokenMethod(
        name,
        summary,
        defaults,
        make,
        check,
        evaluate_student,
        Needs(actions=(), learners=()),
        more_steps=build is not None,  # imitation spreads its epochs over the steps
        build=build,
        needs_teacher=needs_teacher,
    )
    return method


def language_method(name: str) -> TokenMethod:
    """The language-model method of a name.

    Args:
        name: As `lgdrl list strategies` shows it.
    Raises:
        UsageError: There is no such method, or it does not train a language model.
    """
    found = METHODS.get(name)
    if not isinstance(found, TokenMethod):
        raise UsageError(f"strategy {name!r} does not train a language model: choose another one, e.g. 'bread'")
    return found


def make_task(options: TokenOptions, config: RunConfig) -> TextTask:
    """The task that the options of a run name.

    Args:
        options: Resolved options.
        config: The resolved config of the run.
    """
    kind = TASKS.get(options.task)
    return kind.make(resolve(kind.defaults, options.task_options, "strategy_options.task_options"), config)


def sized(options: TokenOptions, task: TextTask) -> gpt.GPTConfig:
    """The size of the student, with the vocabulary of the task."""
    return dataclasses.replace(options.model, vocab_size=len(task.vocabulary))


def evaluate_student(config: RunConfig, run: Run, episodes: int, first_seed: int) -> Evaluation:
    """Greedy answers of a finished run's student to held-out prompts, without hints or teachers.

    Args:
        config: The resolved config.
        run: The run.
        episodes: How many prompts.
        first_seed: Seed of the first one; the others follow.
    Raises:
        UsageError: The run is not finished.
    """
    if not run.finished:
        raise UsageError(f"the run in {str(run.folder)!r} is not finished: continue it with `lgdrl train --resume`")
    options = _options(config, config.method.defaults)
    task = make_task(options, config)
    model = gpt.load(run.policy, task.vocabulary)
    return Evaluation(greedy_episodes(model, task, range(first_seed, first_seed + episodes), options.grpo))


def _options(config: RunConfig, defaults: TokenOptions) -> TokenOptions:
    return resolve(defaults, config.strategy_options, "strategy_options")
