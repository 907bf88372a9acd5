"""Pictures of road maps for inspection: `python -m sim.carla_lite.draw intersection picture.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from sim.carla_lite import maps
from sim.carla_lite.boxes import Box
from sim.carla_lite.roads import RoadMap
from sim.carla_lite.signals import BOX_HEIGHT

COLOURS = {"driving": "#9aa0a8", "shoulder": "#c9ccd1"}
JUNCTION = "#7f8794"
DASHES = {"broken": (0, (6, 8))}
ARROW_SPACING = 40.0
"""Metres between the arrows that show the direction of a lane."""


def draw(road_map: RoadMap, axes: Axes) -> None:
    """Draw lanes, paint, directions, and signals with stop lines and trigger boxes, seen from above; y points down.

    Args:
        road_map: The map.
        axes: Receive it.
    """
    for lane in road_map.lanes:
        colour = JUNCTION if lane.junction is not None else COLOURS.get(lane.type, "#e0e0e0")
        axes.add_collection(
            PolyCollection([np.concatenate([lane.left, lane.right[::-1]])], facecolor=colour, alpha=0.8)
        )
    for kind in {border.kind for border in road_map.borders()} - {"none"}:
        lines = [border for border in road_map.borders() if border.kind == kind]
        colours = ["#d9a400" if border.colour == "yellow" else "white" for border in lines]
        dash = DASHES.get(kind, "solid")
        axes.add_collection(
            LineCollection([border.points for border in lines], colors=colours, linewidths=0.8, linestyles=[dash])
        )
    for x, y, yaw in _arrows(road_map):
        axes.annotate(
            "",
            (x + 4 * np.cos(yaw), y + 4 * np.sin(yaw)),
            (x, y),
            arrowprops={"arrowstyle": "->", "color": "#20304a", "lw": 0.6},
        )
    for signal in (*road_map.signals, *road_map.signs):
        axes.plot(signal.x, signal.y, "o", color="#c0392b" if signal in road_map.signals else "#e67e22", markersize=3)
        for stop in signal.stops:
            axes.plot(*_outline(Box(stop.x, stop.y, stop.z, stop.yaw, (0.1, stop.width / 2, BOX_HEIGHT))), "r", lw=1)
        if signal.trigger is not None:
            axes.plot(*_outline(signal.trigger), color="#c0392b", lw=0.6)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.invert_yaxis()


def picture(road_map: RoadMap, size: tuple[float, float] = (12.0, 12.0)) -> tuple[Figure, Axes]:
    """A figure with the whole map.

    Args:
        road_map: The map.
        size: Width and height, inches.

    Returns:
        The figure and its axes.
    """
    figure = Figure(figsize=size, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(road_map, axes)
    return figure, axes


def _arrows(road_map: RoadMap) -> list[tuple[float, float, float]]:
    found = []
    for lane in road_map.lanes:
        if lane.type != "driving":
            continue
        middle = abs(lane.s[-1] - lane.s[0]) / 2
        step = min(ARROW_SPACING, max(middle, 1.0))
        for along in np.arange(step / 2, 2 * middle, step):
            s = float(lane.s[0] + (along if lane.id < 0 else -along))
            x, y, _, yaw = road_map.pose(lane.road, lane.id, s)
            found.append((x, y, float(np.radians(yaw))))
    return found


def _outline(box: Box) -> tuple[np.ndarray, np.ndarray]:
    yaw = np.radians(box.yaw)
    u = np.array([1, 1, -1, -1, 1]) * box.extent[0]
    v = np.array([1, -1, -1, 1, 1]) * box.extent[1]
    return box.x + u * np.cos(yaw) - v * np.sin(yaw), box.y + u * np.sin(yaw) + v * np.cos(yaw)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("map", help=f"a shipped map ({', '.join(maps.available())}) or an OpenDRIVE file")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--around", type=float, nargs=3, metavar=("X", "Y", "R"), help="draw this part only, in metres")
    arguments = parser.parse_args()
    path = Path(arguments.map)
    text = path.read_text(encoding="utf-8") if path.suffix == ".xodr" else maps.read(arguments.map)
    figure, axes = picture(RoadMap.parse(text))
    if arguments.around:
        x, y, reach = arguments.around
        axes.set(xlim=(x - reach, x + reach), ylim=(y + reach, y - reach))
    figure.savefig(arguments.picture, dpi=100)


if __name__ == "__main__":
    main()
