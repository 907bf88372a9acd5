"""Calls about blueprints and actors: listing, spawning, destroying. Actors are boxes: they have no bones or sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.carla_lite import codec
from sim.carla_lite.actors import NO_ROOM, Actor, CallRefused
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers
from sim.carla_lite.world import LiteWorld

HANDLERS = Handlers()
NO_SKELETON = "carla-lite has boxes only: no bones, sockets or components"


@HANDLERS.returns()
def get_actor_definitions(server: ServerContext) -> Wire:
    hidden = ("spectator", "light")
    return [b.pack(server.world.version) for b in server.world.blueprints.values() if b.kind not in hidden]


@HANDLERS.returns()
def get_spectator(server: ServerContext) -> Wire:
    return server.world.describe(server.world.spectator, server.port)


@HANDLERS.returns()
def get_actors_by_id(server: ServerContext, numbers: Sequence[int]) -> Wire:
    world = server.world
    return [world.describe(world.actors[number], server.port) for number in numbers if number in world.actors]


@HANDLERS.returns()
def spawn_actor(server: ServerContext, description: Wire, pose: Wire) -> Wire:
    return server.world.describe(spawn(server, description, pose), server.port)


@HANDLERS.returns()
def spawn_actor_with_parent(
    server: ServerContext, description: Wire, pose: Wire, parent: int, attachment: int = 0, socket: str = ""
) -> Wire:
    return server.world.describe(spawn(server, description, pose, parent), server.port)


def spawn(server: ServerContext, description: Wire, pose: Wire, parent: int = 0) -> Actor:
    """Create an actor, unless a fault refuses it.

    Args:
        server: The server.
        description: Blueprint and attributes in wire form.
        pose: A transform in wire form.
        parent: Id of the actor to attach to; 0 for none.

    Returns:
        The new actor.

    Raises:
        CallRefused: A fault, or what `LiteWorld.spawn` refuses.
    """
    if server.faults.refuses_spawn():
        raise CallRefused(NO_ROOM)
    return server.world.spawn(description, codec.read_transform(pose), parent)


@HANDLERS.returns()
def destroy_actor(server: ServerContext, number: int) -> Wire:
    server.close_streams(_streams_of(server.world, number))
    return server.world.destroy(number)


def _streams_of(world: LiteWorld, number: int) -> list[int]:
    """Streams of an actor and of all that is attached to it."""
    actor = world.actors.get(number)
    if actor is None:
        return []
    own = [actor.stream] if actor.stream else []
    return own + [stream for child in actor.children for stream in _streams_of(world, child)]


@HANDLERS.returns()
def get_actor_bounding_box(server: ServerContext, number: int) -> Wire:
    """Lenient: the Traffic Manager asks for actors that were just destroyed, and an error would end its process."""
    actor = server.world.actors.get(number)
    return codec.bounding_box((0, 0, 0), (0, 0, 0), number) if actor is None else server.world.box(actor)


@HANDLERS.returns(
    "get_actor_component_names",
    "get_actor_bone_names",
    "get_actor_socket_names",
    "get_actor_bone_world_transforms",
    "get_actor_bone_relative_transforms",
    "get_vehicle_bone_world_transforms",
    "get_actor_socket_world_transforms",
    "get_actor_socket_relative_transforms",
)
def list_parts(server: ServerContext, number: int) -> Wire:
    server.world.actor(number)
    return []


@HANDLERS.returns(
    "get_actor_component_world_transform", "get_actor_component_relative_transform", "get_bones_transform"
)
def locate_part(server: ServerContext, *what: Any) -> Wire:
    raise CallRefused(NO_SKELETON)


@HANDLERS.acts("set_bones_transform", "blend_pose", "get_pose_from_animation")
def move_parts(server: ServerContext, *what: Any) -> None:
    raise CallRefused(NO_SKELETON)
