"""Named parts of the default head, one per triangle: what a generator of looks paints and an artist selects.

Openings of the face are bounded by edge loops of the base mesh; hair, beard and neck by curves on the skull, given as
height over azimuth around the head's vertical axis. Everything is computed on the subject's left and mirrored.
Lengths in decimetres of the neutral head.
"""

from __future__ import annotations

import numpy as np

from .default_mesh import HeadMesh

# Edges (on the subject's left) of the loops around the eye and the mouth, from the inside out
LID_INSIDE = (7773, 7774)  # where the lid turns into the socket
LID_MARGIN = (13352, 13353)
LID_OUTSIDE = (6888, 6889)  # the crease between lid and brow, the upper end of the lower lid
LIP_INSIDE = (541, 545)  # behind the closed lips
LIP_CONTACT = (420, 436)  # where the closed lips meet
LIP_BORDER = (402, 3737)  # edge of the vermilion

REGION_NAMES = (
    "face", "lips", "nose", "ear_left", "ear_right", "scalp", "brow_left", "brow_right", "lid_left", "lid_right",
    "socket_left", "socket_right", "eyeball_left", "eyeball_right", "iris_left", "iris_right", "pupil_left",
    "pupil_right", "mouth_cavity", "teeth_upper", "teeth_lower", "tongue", "chin_beard", "moustache", "neck",
    "neck_cap",
)  # fmt: skip

AXIS_Z = 0.55  # the vertical axis around which azimuth is measured
# azimuth in degrees (0 the face, 180 the back) and height of a border there
HAIRLINE = np.array([(0, 8.16), (15, 8.17), (30, 8.10), (42, 7.95), (52, 7.78), (62, 7.74), (72, 7.60), (82, 7.32),
                     (90, 7.30), (98, 7.60), (112, 7.55), (125, 7.15), (140, 6.85), (180, 6.72)])  # fmt: skip
BEARD_TOP = np.array(
    [(0, 6.72), (10, 6.74), (18, 6.83), (28, 6.93), (40, 6.93), (55, 6.98), (70, 7.15), (80, 7.32), (89, 7.32)]
)
BEARD_BOTTOM = np.array([(0, 6.30), (40, 6.36), (70, 6.58), (89, 6.85)])
NECK_TOP = np.array([(0, 6.33), (40, 6.40), (70, 6.60), (90, 6.80), (120, 6.84), (180, 6.72)])


def label(mesh: HeadMesh) -> np.ndarray:
    """Region [M] of every triangle, as rows of ``REGION_NAMES``."""
    region = np.full(len(mesh.triangles), -1)
    centre = mesh.neutral[mesh.triangles].mean(1)
    left = centre[:, 0] > 0

    def name(mask: np.ndarray, *names: str) -> None:
        """Gives triangles that have no name yet the one name, or the (left, right) pair of names."""
        mask = mask & (region < 0)
        region[mask & left] = REGION_NAMES.index(names[0])
        region[mask & ~left] = REGION_NAMES.index(names[-1])

    for group, side in (("helper-l-eye", "left"), ("helper-r-eye", "right")):
        _label_eye(mesh, group, side, region)
    for group, part in (
        ("helper-upper-teeth", "teeth_upper"),
        ("helper-lower-teeth", "teeth_lower"),
        ("helper-tongue", "tongue"),
    ):
        name(np.isin(mesh.quad_of, np.flatnonzero(mesh.base.groups == group)), part)
    name(mesh.quad_of < 0, "neck_cap")

    # From the inside out: what a loop encloses and no earlier one did
    name(_mouth(mesh, LIP_INSIDE), "mouth_cavity")
    name(_mouth(mesh, LIP_BORDER), "lips")
    name(_eyes(mesh, LID_INSIDE), "socket_left", "socket_right")
    name(_eyes(mesh, LID_OUTSIDE), "lid_left", "lid_right")

    x, y, z = np.abs(centre[:, 0]), centre[:, 1], centre[:, 2]
    azimuth = np.degrees(np.arctan2(x, z - AXIS_Z))
    name((x > 0.66 - 0.1 * (z < 0.5)) & (y > 7.0) & (y < 7.9) & (z < 0.75) & (z > 0.2), "ear_left", "ear_right")
    name((y > 6.98) & (y < 7.5) & (x < 0.21) & (z > 1.33), "nose")
    brow = (y > 7.64) & (y < 7.74) & (x > 0.1) & (x < 0.53) & (z > 1)
    name(brow, "brow_left", "brow_right")
    name((y < 6.99) & (y > 6.8) & (x < 0.33) & (z > 1.3), "moustache")
    name((y > np.interp(azimuth, *HAIRLINE.T)), "scalp")
    beard = (y < np.interp(azimuth, *BEARD_TOP.T)) & (y > np.interp(azimuth, *BEARD_BOTTOM.T)) & (azimuth < 89)
    name(beard, "chin_beard")
    name(y < np.interp(azimuth, *NECK_TOP.T), "neck")
    name(region < 0, "face")
    return region.astype(np.uint8)


def _mouth(mesh: HeadMesh, edge: tuple[int, int]) -> np.ndarray:
    """Triangles [M] bool that a loop around the mouth encloses, mouth cavity included."""
    back = int(np.argmax(mesh.topology.quads.max(1) < 0))  # replaced below by the quad deepest in the mouth
    deep = mesh.base.vertices[mesh.topology.quads].mean(1)
    inside = (np.abs(deep[:, 0]) < 0.1) & (np.abs(deep[:, 1] - 6.95) < 0.4) & (deep[:, 2] > 0.3)
    back = int(np.flatnonzero(inside)[np.argmin(deep[inside][:, 2])])
    return _of(mesh, mesh.topology.enclosed([mesh.topology.loop(*edge)], back))


def _eyes(mesh: HeadMesh, edge: tuple[int, int]) -> np.ndarray:
    """Triangles [M] bool that a loop around the left eye and its mirror image enclose, sockets included."""
    centres = mesh.base.vertices[mesh.topology.quads].mean(1)
    eye = mesh.base.vertices[mesh.base.vertices_of("helper-l-eye")].mean(0)
    near = np.linalg.norm(centres - eye, axis=1) < 0.25
    socket = int(np.flatnonzero(near)[np.argmin(centres[near][:, 2])])
    left = _of(mesh, mesh.topology.enclosed([mesh.topology.loop(*edge)], socket))
    corners = {tuple(sorted(t)) for t in mesh.mirror[mesh.triangles[left]].tolist()}
    return left | np.array([tuple(sorted(t)) in corners for t in mesh.triangles.tolist()])


def _of(mesh: HeadMesh, faces: np.ndarray) -> np.ndarray:
    """Rows of the body's quads to a mask over the head's triangles."""
    body = np.flatnonzero(mesh.base.groups == "body")
    return np.isin(mesh.quad_of, body[faces])


def _label_eye(mesh: HeadMesh, group: str, side: str, region: np.ndarray) -> None:
    ball = np.isin(mesh.quad_of, np.flatnonzero(mesh.base.groups == group))
    points = mesh.neutral[mesh.group(group)]
    ray = mesh.neutral[mesh.triangles[ball]].mean(1) - points.mean(0)
    angle = np.degrees(np.arctan2(np.linalg.norm(ray[:, :2], axis=1), ray[:, 2]))
    parts = np.where(angle < 10, "pupil", np.where(angle < 28, "iris", "eyeball"))
    region[ball] = [REGION_NAMES.index(f"{part}_{side}") for part in parts]
