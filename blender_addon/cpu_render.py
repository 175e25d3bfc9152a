"""Draws a final picture in a process of the engine, where there is no GPU: the command ``headstudio draw``.

The process is started for the first picture and kept until the render, which may be an animation, is over.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import bpy
import numpy as np

from ..engine.avatar.posing import PosedSplats
from ..engine.errors import UserError
from .camera_view import CameraView
from .engine_process import find_engine, last_lines
from .preferences import preferences
from .rendered_scene import PosedAvatar, Surface

POLL = 0.1  # seconds between two looks whether the render was cancelled
NEAR = 0.01  # metres: the engine draws nothing nearer


def draw_by_engine(
    view: CameraView,
    avatars: Sequence[PosedAvatar],
    surfaces: Sequence[Surface],
    offsets: np.ndarray,  # [S, 2] pixels
    wants_depth: bool,
    advance: Callable[[float], bool],
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The same picture as ``draw_on_gpu``, drawn by the engine's CPU back end.

    Raises ``UserError`` if the engine is not found, cannot be started, or fails.
    """
    picture = None
    try:
        picture = _painter().draw(_request(view, avatars, surfaces, offsets), advance)
    finally:
        if picture is None:
            stop()  # an answer that comes later belongs to nobody
    if picture is None:
        return None
    colour, alpha, depth = (picture[name][::-1] for name in ("colour", "alpha", "depth"))
    return np.concatenate([colour, alpha[..., None]], -1), depth if wants_depth else None


def stop() -> None:
    """End the process, if there is one."""
    global _current
    for handlers in (bpy.app.handlers.render_complete, bpy.app.handlers.render_cancel):
        if _on_render_over in handlers:
            handlers.remove(_on_render_over)
    if _current is not None:
        _current.close()
        _current = None


def _request(
    view: CameraView, avatars: Sequence[PosedAvatar], surfaces: Sequence[Surface], offsets: np.ndarray
) -> dict[str, np.ndarray]:
    posed = _together([avatar.posed() for avatar in avatars])
    near, far = view.clip
    depth = view.depth_of(posed["means"])
    left, bottom, right, top = view.border
    seen = (depth >= near) & (depth <= far)
    starts = np.cumsum([0, *(len(surface.vertices) for surface in surfaces)])
    triangles = [surface.triangles + start for surface, start in zip(surfaces, starts[:-1], strict=True)]
    return {
        **{name: array[seen] for name, array in posed.items()},
        "world_to_camera": view.world_to_camera,
        "intrinsics": view.intrinsics,
        "size": np.array([view.width, view.height]),
        "border": np.array([left, view.height - top, right, view.height - bottom]),  # rows counted downwards
        "near": np.array(max(near, NEAR)),
        "orthographic": np.array(view.orthographic),
        "vertices": np.concatenate([np.zeros((0, 3), np.float32), *(surface.vertices for surface in surfaces)]),
        "triangles": np.concatenate([np.zeros((0, 3), np.int32), *triangles]).astype(np.int32),
        # The engine counts rows downwards
        "offsets": offsets * [1, -1],
    }


def _together(parts: Sequence[PosedSplats]) -> dict[str, np.ndarray]:
    """All avatars' splats in one set, with as many SH coefficients as the richest has."""
    coefficients = max((part.sh.shape[1] for part in parts), default=1)
    sh = [np.pad(part.sh, ((0, 0), (0, coefficients - part.sh.shape[1]), (0, 0))) for part in parts]
    shapes = {"means": (0, 3), "quats": (0, 4), "scales": (0, 3), "opacities": (0,)}
    fields = {
        name: np.concatenate([np.zeros(shape, np.float32), *(getattr(part, name) for part in parts)])
        for name, shape in shapes.items()
    }
    return {**fields, "sh": np.concatenate([np.zeros((0, coefficients, 3), np.float32), *sh])}


class _Painter:
    """The engine's process: requests go in by its standard input, answers come by its output, arrays by a folder."""

    def __init__(self, engine: Path):
        self._folder = tempfile.TemporaryDirectory(prefix="headstudio-")
        self._log = Path(self._folder.name) / "log.txt"
        self._answers: queue.Queue[str] = queue.Queue()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment["PYTHONUTF8"] = "1"  # paths may hold any letters
        try:
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    [str(engine), "draw"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    env=environment,
                    cwd=self._folder.name,
                    creationflags=subprocess.CREATE_NO_WINDOW if sys.platform == "win32" else 0,  # type: ignore
                )
        except OSError as error:
            self._folder.cleanup()
            raise UserError(f"The engine at {engine} cannot be started: {error.strerror or error}.") from error
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._answers.put(line.rstrip("\n"))
        self._answers.put("")  # it has ended

    def draw(self, request: dict[str, np.ndarray], advance: Callable[[float], bool]) -> dict[str, np.ndarray] | None:
        """The picture's arrays; None if ``advance`` said to stop. Raises ``UserError``."""
        path = Path(self._folder.name) / "request.npz"
        try:
            np.savez(path, **request)
            self._process.stdin.write(f"{path}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: its last words are in the log
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror or error}. Free some space.") from error
        while True:
            if not advance(0.0):
                return None
            try:
                kind, _, rest = self._answers.get(timeout=POLL).partition(" ")
            except queue.Empty:
                continue
            if kind == "done":
                with np.load(rest) as picture:
                    return dict(picture)
            if kind == "error":
                raise UserError(rest)
            if not kind:
                lines = last_lines(self._log)
                raise UserError(f"The engine ended before the picture was done. {lines[-1] if lines else ''}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


_current: _Painter | None = None


def _painter() -> _Painter:
    global _current
    if _current is None:
        _current = _Painter(find_engine(bpy.path.abspath(preferences(bpy.context).engine)))
        bpy.app.handlers.render_complete.append(_on_render_over)
        bpy.app.handlers.render_cancel.append(_on_render_over)
    return _current


@bpy.app.handlers.persistent
def _on_render_over(*_) -> None:
    stop()
