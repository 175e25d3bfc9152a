"""``headstudio pose``: one frame of an avatar as a PLY that splat viewers open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import JointOption, PresetOption, SetOption, check_parent, command, find_avatar, parse_pose


@command
def run(
    avatar: Annotated[Path, typer.Argument(metavar="AVATAR", help="An avatar file, or a job's folder.")],
    out: Annotated[Path | None, typer.Option(help="PLY to write. Default: beside the avatar.")] = None,
    controls: SetOption = None,
    preset: PresetOption = None,
    joint: JointOption = None,
) -> None:
    """Pose an avatar and write it as PLY.

    \b
    headstudio pose old-man.avatar.npz --preset smile --out smile.ply
    headstudio pose old-man.avatar.npz --set jawOpen=0.5 --set eyeBlinkLeft=1 --joint neck=0,20,0

    The splats are in world coordinates: metres, y up, the face looks towards +z. The layout is that of 3D Gaussian
    splatting, spherical harmonics included.
    """
    import numpy as np

    from ..avatar.file import load_avatar
    from ..avatar.posing import pose_splats
    from ..export.ply import write_ply
    from ..heads.skinning import skin

    path = find_avatar(avatar)
    loaded = load_avatar(path)
    expression, joints = parse_pose(loaded.head, controls, preset, joint)
    out = out or path.with_name(path.name.removesuffix(".avatar.npz") + ".ply")
    check_parent(out)
    vertices = skin(loaded.head, expression, joints, dtype=np.float64)
    write_ply(out, pose_splats(loaded.splats, vertices, loaded.head.triangles))
    print(out)
