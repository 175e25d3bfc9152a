"""Named parts of the default head, one per triangle: what a generator of looks paints and an artist selects.

Openings of the face are bounded by edge loops of the base mesh; hair, beard and neck by curves on the skull, given as
height over azimuth around the head's vertical axis. Everything is computed on the subject's left and mirrored.
Lengths in decimetres of the neutral head.
"""

from __future__ import annotations

import numpy as np

from .default_eyes import IRIS, PUPIL
from .default_mesh import CAP, EYE_LEFT, EYE_RIGHT, MOUTH_PARTS, HeadMesh

# Edges (on the subject's left) of the loops around the eye and the mouth, from the inside out
LID_INSIDE = (7773, 7774)  # where the lid turns into the socket
LID_MARGIN = (13352, 13353)
LID_OUTSIDE = (6888, 6889)  # the crease between lid and brow, the upper end of the lower lid
LIP_INSIDE = (541, 545)  # behind the closed lips
LIP_CONTACT = (420, 436)  # where the closed lips meet
LIP_LINE = (418, 433)  # the last of the lips that is seen when they are closed
LIP_BORDER = (402, 3737)  # edge of the vermilion
EAR_ROOT = (12344, 12346)  # where the ear leaves the head
MOUTH_BACK, SOCKET_BACK, EAR_TIP = 710, 8011, 12038  # vertices that these loops enclose
SMOOTHING = 4  # passes over the borders between parts that are drawn by height

REGION_NAMES = (
    "face", "lips", "nose", "ear_left", "ear_right", "scalp", "brow_left", "brow_right", "lid_left", "lid_right",
    "socket_left", "socket_right", "eyeball_left", "eyeball_right", "iris_left", "iris_right", "pupil_left",
    "pupil_right", "mouth_cavity", "teeth_upper", "teeth_lower", "tongue", "chin_beard", "moustache", "neck",
    "neck_cap",
)  # fmt: skip

AXIS_Z = 0.55  # the vertical axis around which azimuth is measured
# Borders as (azimuth in degrees, height): azimuth 0 is the face, 180 the back of the head
HAIRLINE = np.array(
    [(0, 8.14), (15, 8.15), (30, 8.08), (42, 7.92), (52, 7.76), (62, 7.70), (72, 7.56), (80, 7.32), (92, 7.30),
     (100, 7.62), (112, 7.50), (125, 7.12), (140, 6.85), (180, 6.72)]
)  # fmt: skip
BEARD_TOP = np.array(
    [(0, 6.76), (10, 6.80), (16, 6.90), (22, 6.96), (40, 6.97), (55, 7.03), (70, 7.18), (80, 7.34), (92, 7.34)]
)  # fmt: skip
BEARD_BOTTOM = np.array([(0, 6.33), (40, 6.38), (70, 6.58), (92, 6.90)])
NECK_TOP = np.array([(0, 6.33), (40, 6.38), (70, 6.58), (92, 6.90), (120, 6.95), (180, 6.85)])
# Borders as (distance from the middle, height), and for the nose as (height, distance from the middle)
BROW_TOP = np.array([(0.07, 7.75), (0.20, 7.74), (0.29, 7.735), (0.37, 7.72), (0.45, 7.70), (0.51, 7.665)])
BROW_BOTTOM = np.array([(0.07, 7.69), (0.20, 7.685), (0.29, 7.684), (0.37, 7.676), (0.45, 7.658), (0.51, 7.635)])
BROW_ENDS = (0.07, 0.53)
NOSE_SIDE = np.array([(7.0, 0.20), (7.1, 0.205), (7.2, 0.19), (7.3, 0.14), (7.5, 0.09)])


def label(mesh: HeadMesh) -> np.ndarray:
    """Region [M] of every triangle, as rows of ``REGION_NAMES``."""
    region = np.full(len(mesh.triangles), -1)
    # Both halves of a quad get one name: borders then run along the edges of the modelled mesh
    body = mesh.body_quads >= 0
    centre = mesh.neutral[mesh.triangles].mean(1)
    centre[body] = mesh.neutral[mesh.index[mesh.topology.quads[mesh.body_quads[body]]]].mean(1)
    left = centre[:, 0] > 0

    def name(mask: np.ndarray, *names: str) -> None:
        """Gives triangles that have no name yet the one name, or the (left, right) pair of names."""
        mask = mask & (region < 0)
        region[mask & left] = REGION_NAMES.index(names[0])
        region[mask & ~left] = REGION_NAMES.index(names[-1])

    for group, side in ((EYE_LEFT, "left"), (EYE_RIGHT, "right")):
        angle = mesh.eyeball.polar_angle
        parts = np.where(angle < PUPIL, "pupil", np.where(angle < IRIS, "iris", "eyeball"))
        region[mesh.groups == group] = [REGION_NAMES.index(f"{part}_{side}") for part in parts]
    for group, part in zip(MOUTH_PARTS, ("teeth_upper", "teeth_lower", "tongue"), strict=True):
        name(mesh.groups == group, part)
    name(mesh.groups == CAP, "neck_cap")

    # From the inside out: what a loop encloses and no earlier one did
    name(_enclosed(mesh, LIP_INSIDE, MOUTH_BACK), "mouth_cavity")
    name(_enclosed(mesh, LIP_BORDER, MOUTH_BACK), "lips")
    name(_enclosed(mesh, LID_INSIDE, SOCKET_BACK), "socket_left", "socket_right")
    name(_enclosed(mesh, LID_OUTSIDE, SOCKET_BACK), "lid_left", "lid_right")
    name(_enclosed(mesh, EAR_ROOT, EAR_TIP), "ear_left", "ear_right")

    x, y, z = np.abs(centre[:, 0]), centre[:, 1], centre[:, 2]
    azimuth = np.degrees(np.arctan2(x, z - AXIS_Z))
    brow = (y > np.interp(x, *BROW_BOTTOM.T)) & (y < np.interp(x, *BROW_TOP.T)) & (z > 1)
    name(brow & (x > BROW_ENDS[0]) & (x < BROW_ENDS[1]), "brow_left", "brow_right")
    named = region >= 0
    name((y > 7.0) & (y < 7.5) & (x < np.interp(y, *NOSE_SIDE.T)) & (z > 1.2), "nose")
    name((y > 6.83) & (y < 7.02) & (x < 0.26) & (z > 1.3), "moustache")
    name(y > np.interp(azimuth, *HAIRLINE.T), "scalp")
    name(
        (y < np.interp(azimuth, *BEARD_TOP.T)) & (y > np.interp(azimuth, *BEARD_BOTTOM.T)) & (azimuth < 92),
        "chin_beard",
    )
    name(y < np.interp(azimuth, *NECK_TOP.T), "neck")
    name(region < 0, "face")
    return _smooth(mesh, region, ~named).astype(np.uint8)


def _enclosed(mesh: HeadMesh, edge: tuple[int, int], seed: int) -> np.ndarray:
    """Triangles [M] bool on the side of vertex ``seed`` of the loop through ``edge``, and their mirror images."""
    quads = mesh.topology.quads
    faces = mesh.topology.enclosed([mesh.topology.loop(*edge)], int(np.flatnonzero((quads == seed).any(1))[0]))
    mask = np.isin(mesh.body_quads, faces)
    twins = {tuple(sorted(t)) for t in mesh.mirror[mesh.triangles[mask]].tolist()}
    return mask | np.array([tuple(sorted(t)) in twins for t in mesh.triangles.tolist()])


def _smooth(mesh: HeadMesh, region: np.ndarray, free: np.ndarray) -> np.ndarray:  # [M], [M] bool
    """Takes the teeth out of borders drawn by height: a free quad goes over to a name that most neighbours have."""
    quads, first = np.unique(mesh.body_quads[mesh.body_quads >= 0], return_index=True)
    names = dict(zip(quads.tolist(), region[mesh.body_quads >= 0][first].tolist(), strict=True))
    loose = {q: bool(f) for q, f in zip(quads.tolist(), free[mesh.body_quads >= 0][first].tolist(), strict=True)}
    beside: dict[int, list[int]] = {quad: [] for quad in names}
    for faces in mesh.topology.faces_of.values():
        if len(faces) == 2 and faces[0] in names and faces[1] in names:
            beside[faces[0]].append(faces[1])
            beside[faces[1]].append(faces[0])
    for _ in range(SMOOTHING):
        after = dict(names)
        for quad, others in beside.items():
            near = [names[other] for other in others if loose[other]]
            if loose[quad] and near:
                best = max(sorted(set(near)), key=near.count)
                if near.count(best) >= 3:
                    after[quad] = best
        names = after
    result = region.copy()
    body = mesh.body_quads >= 0
    result[body] = [names[quad] for quad in mesh.body_quads[body].tolist()]
    return result
