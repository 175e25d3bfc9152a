"""Viewer-ready PLY of posed splats, in the layout of 3D Gaussian splatting (numpy and plyfile only).

Per vertex: position, an unused normal, ``f_dc_*`` and ``f_rest_*`` (SH, channel after channel), the logit of the
opacity, the logarithms of the scales, and the rotation wxyz. Coordinates are the world's: metres, y up, the face
towards +z.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement, PlyParseError

from ..avatar.atomic import atomic_write
from ..avatar.posing import PosedSplats
from ..errors import UserError

_OPACITY_RANGE = (1e-6, 1 - 1e-6)  # the file holds logits: 0 and 1 themselves would be infinite
_SMALLEST_SCALE = 1e-12  # metres; the file holds logarithms


def write_ply(path: str | os.PathLike[str], splats: PosedSplats) -> None:
    """Writes the splats atomically, binary little-endian float32. Raises ``UserError`` if that fails."""
    count, coefficients = splats.sh.shape[:2]
    rest = splats.sh[:, 1:].transpose(0, 2, 1).reshape(count, 3 * (coefficients - 1))
    opacity = np.clip(splats.opacities.astype(np.float64), *_OPACITY_RANGE)
    columns = np.concatenate(
        [
            splats.means,
            np.zeros((count, 3)),
            splats.sh[:, 0],
            rest,
            np.log(opacity / (1 - opacity))[:, None],
            np.log(np.maximum(splats.scales, _SMALLEST_SCALE)),
            splats.quats / np.linalg.norm(splats.quats, axis=1, keepdims=True),
        ],
        axis=1,
    ).astype("<f4")
    table = np.ascontiguousarray(columns).view([(name, "<f4") for name in _columns(coefficients)])[:, 0]
    with atomic_write(path) as file:
        PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(file)


def read_ply(path: str | os.PathLike[str]) -> PosedSplats:
    """Reads such a file (ours or another program's, text or binary). Raises ``UserError`` if it is no such file."""
    path = Path(path)
    try:
        # Not memory-mapped: the caller may replace the file while it uses the splats
        table = PlyData.read(path, mmap=False)["vertex"].data
        rest = sum(name.startswith("f_rest_") for name in table.dtype.names)
        if rest not in (0, 9, 24, 45):
            raise ValueError(f"it has {rest} f_rest properties")
        coefficients = 1 + rest // 3
        names = [name for name in _columns(coefficients) if name not in ("nx", "ny", "nz")]
        columns = np.stack([np.asarray(table[name], np.float32) for name in names], 1)
    except FileNotFoundError as error:
        raise UserError(f"There is no PLY file at {path}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (PlyParseError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is not a PLY of Gaussian splats: {error}.") from error
    means, dc, sh, opacity, scales, quats = np.split(columns, np.cumsum([3, 3, rest, 1, 3]), axis=1)
    with np.errstate(over="ignore"):
        scales = np.exp(scales)
        opacities = 1 / (1 + np.exp(-opacity[:, 0]))
    if not (np.isfinite(columns).all() and np.isfinite(scales).all()):
        raise UserError(f"{path} holds numbers that are not finite. Export it again.")
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    if (length == 0).any():
        raise UserError(f"{path} holds a splat without a rotation. Export it again.")
    return PosedSplats(
        means=means,
        quats=quats / length,
        scales=scales,
        opacities=opacities,
        sh=np.concatenate([dc[:, None], sh.reshape(len(sh), 3, coefficients - 1).transpose(0, 2, 1)], 1),
    )


def _columns(coefficients: int) -> list[str]:
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(3 * (coefficients - 1))),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
