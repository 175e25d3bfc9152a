"""``headstudio draw``: pictures of posed splats through given cameras, for a program that has no GPU to draw with."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .common import command

FIELDS = ("means", "quats", "scales", "opacities", "sh")


@command
def run() -> None:
    """Draw posed splats on the CPU (what Blender's add-on runs).

    Each line of the input is the path of a request, an .npz file; its answer, a line of the output, is "done" and the
    path of a .npz with the picture, or "error" and what is wrong. It ends when its input ends.
    """
    import sys

    for line in sys.stdin:
        request = Path(line.rstrip("\n"))
        try:
            answer = f"done {draw(request)}"
        except UserError as error:
            answer = f"error {error}"
        print(answer, flush=True)


def draw(request: Path) -> Path:
    """Draws one request and returns the picture's path, ``picture.npz`` beside it. Raises ``UserError``.

    The request holds the fields of ``PosedSplats`` (in the world of the camera), ``world_to_camera`` [4, 4],
    ``intrinsics`` [3, 3], ``size`` (width, height in pixels), ``border`` (left, top, right, bottom: the part of it to
    draw), ``near`` (metres), ``orthographic``, and the surfaces that hide splats: ``vertices`` [V, 3], ``triangles``
    [T, 3] and ``offsets`` [S, 2] as ``rasterise_occluded`` takes them. The part drawn has ``colour`` [H, W, 3] over
    black, ``alpha`` [H, W] and ``depth`` [H, W], depth times alpha in metres.
    """
    import numpy as np
    import torch

    from ..avatar.archive import read_archive
    from ..camera import Camera
    from ..gaussians import Gaussians
    from ..rasterise import rasterise
    from ..rasterise.occluded import rasterise_occluded

    arrays = read_archive(request, "request for a picture")
    try:
        gaussians = Gaussians(*(torch.from_numpy(arrays[name].astype("float32")) for name in FIELDS))
        width, height = (int(side) for side in arrays["size"])
        camera = Camera(
            world_to_camera=torch.from_numpy(arrays["world_to_camera"].astype("float32")),
            intrinsics=torch.from_numpy(arrays["intrinsics"].astype("float32")),
            width=width,
            height=height,
            near=float(arrays["near"]),
            orthographic=bool(arrays["orthographic"]),
        )
        vertices, triangles, offsets = (arrays[name] for name in ("vertices", "triangles", "offsets"))
        left, top, right, bottom = (int(side) for side in arrays["border"])
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"border {left, top, right, bottom} of {width} x {height} pixels")
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{request} is no request for a picture: {error!r}.") from error
    border = (left, top, right, bottom)
    if len(triangles):
        colour, alpha, depth = rasterise_occluded(gaussians, camera, vertices, triangles, offsets, border)
    elif border != (0, 0, width, height):
        colour, alpha, depth = rasterise_occluded(gaussians, camera, vertices, triangles, offsets[:1], border)
    else:
        render = rasterise(gaussians, camera)
        colour, alpha, depth = render.colour.numpy(), render.alpha.numpy(), render.depth.numpy()
    picture = request.with_name("picture.npz")
    try:
        np.savez(picture, colour=colour, alpha=alpha, depth=depth)
    except OSError as error:
        raise UserError(f"Cannot write {picture}: {error.strerror or error}.") from error
    return picture
