"""What a .blend stores of an avatar, worked out beforehand (no bpy), so that a thread can do it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace

import numpy as np

from ..engine.avatar.file import Avatar, pack_avatar
from ..engine.avatar.splats import SplatArrays
from .rig_arrays import RigArrays, rig_arrays

NO_SPLATS = SplatArrays(
    triangle=np.zeros(0, np.int32),
    offset=np.zeros((0, 3), np.float32),
    scale=np.zeros((0, 3), np.float32),
    rotation=np.zeros((0, 4), np.float32),
    sh=np.zeros((0, 1, 3), np.float32),
    opacity=np.zeros(0, np.float32),
)


@dataclass(frozen=True)
class AvatarParts:
    """An avatar as Blender's main thread wants it: nothing is left to be computed."""

    rig: RigArrays
    splats: SplatArrays  # ``storable``
    kept: bytes  # the avatar file without the splats
    provenance: str  # JSON


def avatar_parts(avatar: Avatar) -> AvatarParts:
    """All that :func:`import_avatar.add_avatar` puts into the .blend."""
    archive = io.BytesIO()
    # Not deflated: that would take longer than all the rest of an import
    np.savez(archive, **pack_avatar(replace(avatar, splats=NO_SPLATS)))
    return AvatarParts(
        rig=rig_arrays(avatar.head),
        splats=storable(avatar.splats),
        kept=archive.getvalue(),
        provenance=json.dumps(avatar.provenance),
    )


def storable(splats: SplatArrays) -> SplatArrays:
    """The same splats in memory as Blender stores them: each SH coefficient of all splats together."""
    return replace(splats, sh=np.ascontiguousarray(splats.sh.transpose(1, 0, 2)).transpose(1, 0, 2))
