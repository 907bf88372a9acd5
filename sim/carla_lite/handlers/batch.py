"""Batches: lists of commands, each of which has a response of its own.

A command is [number, fields]. Every command but a spawn is a call about the actor that comes first in its fields.
"""

from __future__ import annotations

import logging

from sim.carla_lite import codec
from sim.carla_lite.actors import CallRefused
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers import actors, bodies, lights, unsupported, vehicles, walkers
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handler, Handlers

log = logging.getLogger("carla-lite")
HANDLERS = Handlers()
SPAWN = 0
DESTROY = 1
COMMANDS: dict[int, Handler] = {
    DESTROY: actors.HANDLERS["destroy_actor"],
    2: vehicles.HANDLERS["apply_control_to_vehicle"],
    3: vehicles.HANDLERS["apply_ackermann_control_to_vehicle"],
    4: walkers.HANDLERS["apply_control_to_walker"],
    5: vehicles.HANDLERS["apply_physics_control"],
    6: bodies.HANDLERS["set_actor_transform"],
    7: walkers.HANDLERS["set_walker_state"],
    8: bodies.HANDLERS["set_actor_target_velocity"],
    9: bodies.HANDLERS["set_actor_target_angular_velocity"],
    10: bodies.HANDLERS["add_actor_impulse"],
    11: bodies.HANDLERS["add_actor_force"],
    12: bodies.HANDLERS["add_actor_angular_impulse"],
    13: bodies.HANDLERS["add_actor_torque"],
    14: bodies.HANDLERS["set_actor_simulate_physics"],
    15: bodies.HANDLERS["set_actor_enable_gravity"],
    16: vehicles.HANDLERS["set_actor_autopilot"],
    17: vehicles.HANDLERS["show_vehicle_debug_telemetry"],
    18: vehicles.HANDLERS["set_vehicle_light_state"],
    19: bodies.HANDLERS["set_actor_location"],
    20: unsupported.HANDLERS["console_command"],
    21: lights.HANDLERS["set_traffic_light_state"],
}
"""Handlers of batch commands by their number, without `SPAWN`."""


def apply_batch(server: ServerContext, commands: Wire = None, tick: bool = False, *more: Wire) -> Wire:
    """Carry out commands in order.

    Args:
        server: The server.
        commands: List of commands in wire form.
        tick: Compute a frame afterwards; the real client ticks in a call of its own.
        more: Ignored.

    Returns:
        A response per command, without the wrapper that other calls' responses have.
    """
    if not isinstance(commands, list):
        return codec.failure("a batch is a list of commands")
    results = [_carry_out(server, command) for command in commands]
    if tick:
        server.advance()
    return results


HANDLERS["apply_batch"] = apply_batch


def _carry_out(server: ServerContext, command: Wire) -> Wire:
    """The id of the actor that the command was about, or why it was not carried out."""
    try:
        ((index, fields),) = command
        return codec.value(_spawn(server, fields) if index == SPAWN else _act(server, index, fields))
    except CallRefused as refusal:
        return codec.failure(str(refusal))
    except Exception as problem:  # commands of any shape can come from a client, as in `registry`
        log.warning("a command of a batch failed: %r", problem)
        return codec.failure(f"carla-lite cannot carry out this command: {problem}")


def _act(server: ServerContext, index: int, fields: Wire) -> int:
    handler = COMMANDS.get(index)
    if handler is None:
        raise CallRefused(f"carla-lite does not know batch command {index}")
    (response,) = handler(server, *fields)
    if response[0] is True:
        raise CallRefused(response[1][0])
    if index == DESTROY and response == [1, False]:
        raise CallRefused(f"actor {fields[0]} does not exist")
    return fields[0]


def _spawn(server: ServerContext, fields: Wire) -> int:
    """Spawn an actor, then carry out the commands that follow with its id in place of the placeholder."""
    description, pose, parent, *_, following = fields
    actor = actors.spawn(server, description, pose, codec.read_optional(parent) or 0)
    for ((index, (_, *rest)),) in following:
        _carry_out(server, [[index, [actor.id, *rest]]])
    return actor.id
