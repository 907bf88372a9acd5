"""Lists of arrays, scenes and pictures as a few plain arrays and a JSON-ready index, equal to the bit when taken back.

Rows of one name may differ in length, shape and type, and may be absent: rows of a kind lie end to end in one array.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sim.picture import Picture
from sim.scene import CONFLICT, Ego, Goal, LaneShape, Scene, Vehicles

_NUMBERS = {"float": "f8", "int": "i8", "bool": "?"}
_EGO = tuple(f.name for f in dataclasses.fields(Ego))
_FRAME = ("time", "decision_period", "lane_width")
_SCENE = np.dtype(
    [(name, "f8") for name in _FRAME]
    + [(f"ego_{f.name}", _NUMBERS[str(f.type)]) for f in dataclasses.fields(Ego)]
    + [("has_goal", "?")]
)
_VEHICLES = tuple(f.name for f in dataclasses.fields(Vehicles))
_GOAL = tuple(f.name for f in dataclasses.fields(Goal))


class Columns:
    """Named lists of arrays, packed. `arrays` and `index` are all there is to them."""

    def __init__(self, arrays: dict[str, np.ndarray] | None = None, index: dict[str, Any] | None = None) -> None:
        self.arrays = {} if arrays is None else arrays
        self.index = {} if index is None else index
        """By name: {"ndims": of each kind, "rows": [[kind, length], ...]}; kind -1 is an absent row."""

    def put(self, name: str, rows: Iterable[Any]) -> None:
        """Keep `rows` (arrays, numbers or None) under `name`."""
        kinds: dict[tuple[str, int, tuple[int, ...]], int] = {}
        parts: list[list[np.ndarray]] = []
        placed: list[list[int]] = []
        for row in rows:
            if row is None:
                placed.append([-1, 0])
                continue
            values = np.asarray(row)
            flat = values.reshape(1) if values.ndim == 0 else values
            key = (str(np.lib.format.dtype_to_descr(values.dtype)), values.ndim, flat.shape[1:])
            kind = kinds.setdefault(key, len(kinds))
            if kind == len(parts):
                parts.append([])
            parts[kind].append(flat)
            placed.append([kind, len(flat)])
        self.arrays |= {f"{name}.{kind}": np.concatenate(each) for kind, each in enumerate(parts)}
        self.index[name] = {"ndims": [ndim for _, ndim, _ in kinds], "rows": placed}

    def take(self, name: str, count: int) -> list[Any]:
        """The rows kept under `name`, None where absent. ValueError unless there are `count` that fit their arrays."""
        ndims, rows = self.index[name]["ndims"], self.index[name]["rows"]
        if len(rows) != count:
            raise ValueError(f"{name}: {len(rows)} rows in place of {count}")
        ends = [0] * len(ndims)
        taken: list[Any] = []
        for kind, length in rows:
            if kind == -1:
                taken.append(None)
                continue
            start, ends[kind] = ends[kind], ends[kind] + length
            values = self.arrays[f"{name}.{kind}"][start : ends[kind]]
            if kind < 0 or len(values) != length or (ndims[kind] == 0 and length != 1):
                raise ValueError(f"{name}: rows do not fit their array")
            taken.append(values[0, ...] if ndims[kind] == 0 else values)
        if any(end != len(self.arrays[f"{name}.{kind}"]) for kind, end in enumerate(ends)):
            raise ValueError(f"{name}: an array holds more than its rows")
        return taken

    def take_all(self, name: str, count: int) -> list[np.ndarray]:
        """As `take`, where no row may be absent."""
        rows = self.take(name, count)
        if any(row is None for row in rows):
            raise ValueError(f"{name}: a row is absent")
        return rows

    def take_numbers(self, name: str, count: int) -> list[Any]:
        """As `take`, for rows that are plain numbers or None."""
        return [None if row is None else row.item() for row in self.take(name, count)]


def pack(arrays: Mapping[str, np.ndarray], header: Any, plain: Callable[[Any], Any] | None = None) -> bytes:
    """Arrays and a JSON-ready header as the content of an .npz that needs no pickle; the same for equal content.

    `plain` makes JSON of what is not, as json.dumps's `default`.
    """
    text = json.dumps(header, default=plain)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(content: bytes) -> tuple[dict[str, np.ndarray], Any]:
    """Inverse of `pack`; the header is None where there is none. Raises whatever damaged content leads to."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # reading each member whole has its checksum compared
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    arrays = {
        name: np.lib.format.read_array(io.BytesIO(member), allow_pickle=False) for name, member in members.items()
    }
    return arrays, json.loads(arrays.pop("header").tobytes()) if "header" in arrays else None


def put_scenes(columns: Columns, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Keep scenes in `columns`; returns the JSON-ready rest. Equal drawings of the road are kept once."""
    columns.arrays["scene"] = np.array([_numbers(scene) for scene in scenes], _SCENE)
    for name in _VEHICLES:
        columns.put(f"vehicles.{name}", (getattr(scene.vehicles, name) for scene in scenes))
    for name in _GOAL:
        columns.put(f"goal.{name}", (getattr(scene.goal, name, None) for scene in scenes))
    columns.put("scene.legal", (scene.legal for scene in scenes))
    columns.put("scene.conflicts", (scene.conflicts if len(scene.conflicts) else None for scene in scenes))
    for name in ("lane_centers", "set_points"):
        columns.put(f"scene.{name}", (np.array(getattr(scene, name), float) for scene in scenes))
    numbers: dict[Any, int] = {}
    drawings: list[tuple[LaneShape, ...]] = []
    drawn = []
    for scene in scenes:
        number = numbers.get(id(scene.shapes))
        if number is None:
            number = numbers.setdefault(tuple(_content(shape) for shape in scene.shapes), len(drawings))
            numbers[id(scene.shapes)] = number
            if number == len(drawings):
                drawings.append(scene.shapes)
        drawn.append(number)
    shapes = [shape for drawing in drawings for shape in drawing]
    columns.put("shapes.center", (shape.center for shape in shapes))
    columns.put("shapes.width", (np.array(shape.width, float) for shape in shapes))
    return {
        "scenarios": [scene.scenario for scene in scenes],
        "drawn": drawn,
        "drawings": [len(drawing) for drawing in drawings],
        "borders": [[shape.left, shape.right] for shape in shapes],
    }


def take_scenes(columns: Columns, rest: dict[str, Any], count: int) -> list[Scene]:
    """Inverse of `put_scenes`. Raises whatever a damaged index leads to."""
    rows = columns.arrays["scene"]
    if rows.dtype != _SCENE or rows.shape != (count,):
        raise ValueError("scene: the table of scenes does not fit")
    vehicles = [columns.take_all(f"vehicles.{name}", count) for name in _VEHICLES]
    goals = [columns.take_numbers(f"goal.{name}", count) for name in _GOAL]
    legal = columns.take_all("scene.legal", count)
    centers, points = (columns.take_all(f"scene.{name}", count) for name in ("lane_centers", "set_points"))
    conflicts = _take_conflicts(columns, count)
    drawings = _take_drawings(columns, rest)
    scenes = []
    for k, (row, scenario, drawn) in enumerate(zip(rows, rest["scenarios"], rest["drawn"], strict=True)):
        if len({len(column[k]) for column in vehicles}) > 1:
            raise ValueError("vehicles: columns differ in length")
        scenes.append(
            Scene(
                scenario=scenario,
                **{name: row[name].item() for name in _FRAME},
                ego=Ego(**{name: row[f"ego_{name}"].item() for name in _EGO}),
                vehicles=Vehicles(*(column[k] for column in vehicles)),
                lane_centers=tuple(centers[k].tolist()),
                set_points=tuple(points[k].tolist()),
                legal=legal[k],
                goal=Goal(*(column[k] for column in goals)) if row["has_goal"] else None,
                shapes=drawings[drawn],
                conflicts=conflicts[k],
            )
        )
    return scenes


def put_pictures(columns: Columns, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Keep the pictures of one environment in `columns`; returns the JSON-ready rest."""
    columns.put("picture", (np.frombuffer(picture.packed, np.uint8) for picture in pictures))
    columns.put("picture.legal", (picture.legal for picture in pictures))
    for name in ("time", "step"):
        columns.put(f"picture.{name}", (getattr(picture, name) for picture in pictures))
    first = pictures[0]
    for name in ("low", "high"):
        columns.put(f"picture.{name}", [getattr(first, name)])
    return {
        "scenario": first.scenario,
        "decision_period": first.decision_period,
        "names": list(first.names),
        "sizes": [list(picture.size) for picture in pictures],
    }


def take_pictures(columns: Columns, rest: dict[str, Any], count: int) -> list[Picture]:
    """Inverse of `put_pictures`. Raises whatever a damaged index leads to."""
    times, steps = columns.take_numbers("picture.time", count), columns.take_numbers("picture.step", count)
    packed, legal = columns.take_all("picture", count), columns.take_all("picture.legal", count)
    (low,), (high,) = columns.take("picture.low", 1), columns.take("picture.high", 1)
    names, period = tuple(map(str, rest["names"])), float(rest["decision_period"])
    if any(len(mask) != len(names) for mask in legal) or any(data.dtype != np.uint8 for data in packed):
        raise ValueError("picture: rows do not fit")
    pictures = []
    for k, (width, height) in enumerate(rest["sizes"]):
        size = int(width), int(height)
        made = Picture(
            str(rest["scenario"]), times[k], period, steps[k], size, packed[k].tobytes(), legal[k], names, low, high
        )
        made.pixels()  # raises where they do not fit
        pictures.append(made)
    if len(pictures) != count:
        raise ValueError(f"picture: {len(pictures)} sizes in place of {count}")
    return pictures


def _take_conflicts(columns: Columns, count: int) -> list[np.ndarray]:
    """`CONFLICT` of each scene; none in files from before there were conflicts."""
    none = np.zeros(0, CONFLICT)
    if "scene.conflicts" not in columns.index:
        return [none] * count
    taken = [none if row is None else row for row in columns.take("scene.conflicts", count)]
    if any(row.dtype != CONFLICT for row in taken):
        raise ValueError("conflicts: rows do not fit")
    return taken


def _take_drawings(columns: Columns, rest: dict[str, Any]) -> list[tuple[LaneShape, ...]]:
    count = sum(rest["drawings"])
    centers, widths = columns.take_all("shapes.center", count), columns.take_numbers("shapes.width", count)
    if not all(isinstance(kind, str) for pair in rest["borders"] for kind in pair):
        raise ValueError("a lane's border is no word")
    columns_of_shapes = zip(centers, widths, rest["borders"], strict=True)
    shapes = iter([LaneShape(center, width, left, right) for center, width, (left, right) in columns_of_shapes])
    return [tuple(next(shapes) for _ in range(length)) for length in rest["drawings"]]


def _numbers(scene: Scene) -> tuple[Any, ...]:
    frame = (getattr(scene, name) for name in _FRAME)
    return (*frame, *(getattr(scene.ego, name) for name in _EGO), scene.goal is not None)


def _content(shape: LaneShape) -> tuple[Any, ...]:
    center = np.asarray(shape.center)
    return (
        center.tobytes(),
        center.shape,
        center.dtype.str,
        np.float64(shape.width).tobytes(),
        shape.left,
        shape.right,
    )
