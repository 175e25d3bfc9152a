"""The engine's CPU picture of posed splats, drawn in a process of its own, because Blender's Python may lack torch.

Run as a program it is that process: it answers each line of its input, the path of a request, with the path of a
picture.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from headstudio.avatar.posing import PosedSplats

FIELDS = ("means", "quats", "scales", "opacities", "sh")


def engine_picture(
    posed: PosedSplats,
    world_to_camera: np.ndarray,  # [4, 4], the camera looks along +z with y down
    intrinsics: np.ndarray,  # [3, 3] pixels
    width: int,
    height: int,
    orthographic: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Premultiplied display-referred colour [H, W, 3] and alpha [H, W], top row first."""
    process, folder = _painter()
    path = folder / "request.npz"
    arrays = {name: getattr(posed, name) for name in FIELDS}
    np.savez(
        path,
        world_to_camera=world_to_camera,
        intrinsics=intrinsics,
        size=(width, height),
        orthographic=orthographic,
        **arrays,
    )
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    answer = process.stdout.readline().strip()
    assert answer, "the process that draws the engine's pictures died; its error is above"
    with np.load(answer) as picture:
        return picture["colour"], picture["alpha"]


@functools.cache
def _painter() -> tuple[subprocess.Popen, Path]:
    """The process, which ends with ours (its input ends), and a folder to talk through."""
    from this_blender import engine_python  # not in the process that paints, which is this file by itself

    folder = Path(tempfile.mkdtemp(prefix="engine-picture-"))
    process = subprocess.Popen(
        [engine_python(), __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    return process, folder


def _serve() -> None:
    import torch
    from headstudio.camera import Camera
    from headstudio.gaussians import Gaussians
    from headstudio.rasterise import rasterise

    for line in sys.stdin:
        path = Path(line.strip())
        with np.load(path) as request:
            arrays = {name: request[name] for name in request.files}
        width, height = (int(side) for side in arrays["size"])
        gaussians = Gaussians(*(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in FIELDS))
        camera = Camera(
            world_to_camera=torch.tensor(arrays["world_to_camera"], dtype=torch.float32),
            intrinsics=torch.tensor(arrays["intrinsics"], dtype=torch.float32),
            width=width,
            height=height,
            orthographic=bool(arrays["orthographic"]),
        )
        render = rasterise(gaussians, camera)
        answer = path.with_name("picture.npz")
        np.savez(answer, colour=render.colour.numpy(), alpha=render.alpha.numpy())
        print(answer, flush=True)


if __name__ == "__main__":
    _serve()
