"""Pictures and films of scenes: `SceneRenderer` draws any `Scene`, `interpolate` computes scenes between decisions.
`PictureRenderer` frames what environments without scenes draw of themselves.

It needs no simulator, and no display unless a window is requested.
"""

from sim.render.motion import interpolate, smooth
from sim.render.overlay import Overlay
from sim.render.palette import DARK, LIGHT, THEMES, Theme
from sim.render.pictures import PictureRenderer
from sim.render.renderer import SceneRenderer
from sim.render.shown import ShownRenderer
from sim.render.video import check_video, write_video

__all__ = [
    "DARK",
    "LIGHT",
    "THEMES",
    "Overlay",
    "PictureRenderer",
    "SceneRenderer",
    "ShownRenderer",
    "Theme",
    "check_video",
    "interpolate",
    "smooth",
    "write_video",
]
