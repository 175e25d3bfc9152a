"""Joints of the default head: where they are, how they follow identity, what they move, and the re-solved jaw.

Lengths in decimetres, like :class:`~.default_mesh.HeadMesh`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import JOINT_NAMES
from .default_eyes import sphere_centre
from .default_mesh import EYE_LEFT as LEFT_BALL
from .default_mesh import EYE_RIGHT as RIGHT_BALL
from .default_mesh import HeadMesh
from .skinning import rotation_matrices

NECK, JAW, EYE_LEFT, EYE_RIGHT = (JOINT_NAMES.index(name) for name in ("neck", "jaw", "eye_left", "eye_right"))
PIVOT = np.array([0.0, 6.129, 0.069])  # the neck's joint in the neutral head: MakeHuman's ``joint-neck``
HINGE = np.array([0.0, 7.1, 0.6])  # the jaw's axis in the neutral head
JAW_ANGLE = np.radians(26.0)  # at jawOpen = 1
RIDGE = 0.04  # of the weights' least squares
NECK_RINGS = 7  # edge loops over which the root's grip on the neck fades out


@dataclass(frozen=True)
class Jaw:
    """How much each vertex turns with the jaw, and what the turn does not reach."""

    weights: np.ndarray  # [N]
    corrective: np.ndarray  # [N, 3] added before skinning, times sin(angle)


def joint_regressor(mesh: HeadMesh) -> np.ndarray:
    """Rows [J, N] over nearby vertices that put the joints of the neutral head exactly where they belong.

    The root is the middle of the neck's cut; the neck is MakeHuman's; the eyes are the middles of their eyeballs, so
    that they turn in place; the jaw is the hinge, held by the skin around it. Every row is the flattest (least-norm)
    one, so that a joint follows identity like the mean of its support.
    """
    points = mesh.neutral
    rows = np.zeros((len(JOINT_NAMES), len(points)))
    rows[0, mesh.neck_loop] = 1 / len(mesh.neck_loop)
    rings = mesh.topology.rings(mesh.base_ids[mesh.neck_loop].tolist())
    around_neck = mesh.index[[v for v, ring in rings.items() if ring <= 6]]
    _hold(rows[NECK], around_neck[around_neck >= 0], points, PIVOT)
    skin = mesh.vertices_of("body")
    to_hinge = np.linalg.norm(np.abs(points[skin]) - [0.62, *HINGE[1:]], axis=1)
    _hold(rows[JAW], skin[to_hinge < 0.25], points, HINGE)
    for joint, group in ((EYE_LEFT, LEFT_BALL), (EYE_RIGHT, RIGHT_BALL)):
        eyeball = mesh.vertices_of(group)
        _hold(rows[joint], eyeball, points, sphere_centre(points[eyeball]))
    return rows


def _hold(row: np.ndarray, support: np.ndarray, points: np.ndarray, target: np.ndarray) -> None:
    conditions = np.c_[points[support], np.ones(len(support))].T  # [4, K]
    row[support] = np.linalg.lstsq(conditions, np.append(target, 1.0), rcond=None)[0]


def solve_jaw(mesh: HeadMesh, opening: np.ndarray) -> Jaw:
    """Weights for which the hinge's turn by ``JAW_ANGLE`` comes nearest to the displacement ``opening`` [N, 3].

    What is left goes into the pose corrective, so the joint alone reproduces ``opening`` exactly. Lower teeth and
    tongue hang on the jaw alone.
    """
    rotation = rotation_matrices(np.array([JAW_ANGLE, 0, 0]))
    arm = mesh.neutral - HINGE
    turn = arm @ rotation.T - arm
    # Beside the axis the turn is too short to tell a weight from: there the ridge lets it fade
    weights = np.clip((opening * turn).sum(1) / ((turn**2).sum(1) + RIDGE**2), 0, 1)
    for group in ("helper-lower-teeth", "helper-tongue"):
        weights[mesh.vertices_of(group)] = 1
    blended = weights[:, None, None] * rotation + (1 - weights)[:, None, None] * np.eye(3)
    residual = opening - weights[:, None] * turn
    corrective = np.linalg.solve(blended, residual[..., None])[..., 0] / np.sin(JAW_ANGLE)
    return Jaw(weights, corrective)


def skin_weights(mesh: HeadMesh, jaw: Jaw) -> np.ndarray:
    """Weights [N, J]: the neck fades into the root towards the cut, the eyes are rigid, the jaw is as solved."""
    rings = mesh.topology.rings(mesh.base_ids[mesh.neck_loop].tolist())
    fade = np.array([min(rings.get(int(v), NECK_RINGS), NECK_RINGS) for v in mesh.base_ids]) / NECK_RINGS
    fade = np.concatenate([fade, np.ones(2 * len(mesh.eyeball.mix)), [0]])
    neck = fade**2 * (3 - 2 * fade)
    weights = np.zeros((len(mesh.neutral), len(JOINT_NAMES)))
    weights[:, JAW] = jaw.weights
    weights[:, NECK] = (1 - jaw.weights) * neck
    weights[:, 0] = (1 - jaw.weights) * (1 - neck)
    for joint, group in ((EYE_LEFT, LEFT_BALL), (EYE_RIGHT, RIGHT_BALL)):
        weights[mesh.vertices_of(group)] = np.eye(len(JOINT_NAMES))[joint]
    return weights


def eye_turn(pole: np.ndarray, displacement: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Axis-angle [3] of the turn about ``centre`` [3] that points the eye to where its ``pole`` [3] is displaced.

    The sculpted eyes turn about a point behind their middle and come out of their sockets by up to 2 mm; ours keep the
    line of sight and stay in place. No torsion.
    """
    before, after = pole - centre, pole + displacement - centre
    axis = np.cross(before, after)
    length = np.linalg.norm(axis)
    return axis / max(length, 1e-12) * np.arctan2(length, before @ after)
