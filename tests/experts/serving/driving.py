"""A driver with random weights, as small as it gets: what it decides is nonsense, how it is asked is not."""

import contextlib
import threading

from experts.language import gpt
from experts.language.driver import Driver
from experts.language.vocabulary import DRIVING
from experts.llm.prompt import PromptConfig, PromptGenerator
from experts.serving.driver_model import DriverModel
from experts.serving.server import ChatServer
from tests.experts.conftest import free_road

CONFIG = gpt.GPTConfig(len(DRIVING), 96, 1, 2, 16)


def random_driver(seed=0):
    return Driver(gpt.new(CONFIG, seed))


@contextlib.contextmanager
def serving(model, **options):
    with ChatServer(model, **options) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def question(form="label", context=None, **config):
    """A `Prompt` about a free road."""
    return PromptGenerator(PromptConfig(**config)).build((context or free_road()).scene, form)


def driver_model(seed=0):
    return DriverModel(random_driver(seed))
