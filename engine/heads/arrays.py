"""A parametric head as plain numpy arrays: what a head file, an avatar file and both halves of the project share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

JOINT_NAMES = ("root", "neck", "jaw", "eye_left", "eye_right")
JOINT_PARENTS = (-1, 0, 1, 1, 1)


@dataclass(frozen=True)
class Controls:
    """Named sliders (ARKit's 52 on every head) as a linear map to expression coefficients and joint rotations.

    On the default head ``jawOpen`` turns the jaw joint and ``eyeLook*`` turn the eyes; on FLAME a slider is a solved
    mix.
    """

    names: tuple[str, ...]
    to_expression: np.ndarray  # [C, E] float32
    to_joints: np.ndarray  # [C, J, 3] float32, radians (axis-angle, summed)


@dataclass(frozen=True)
class Landmarks:
    """MediaPipe face-mesh indices as points on the head's triangles (see ``condition/``)."""

    indices: np.ndarray  # [L] int32, MediaPipe index; irises are 468 (right) and 473 (left)
    triangles: np.ndarray  # [L] int32, row of HeadArrays.triangles
    barycentric: np.ndarray  # [L, 3] float32, sums to 1


EYEBALLS = ("eyeball", "iris", "pupil")
MOUTH = ("mouth_cavity", "teeth", "tongue")
"""Words in the names of regions that lids and lips cover."""


@dataclass(frozen=True)
class HeadArrays:
    """A head with N vertices, M triangles, S identity and E expression components and J joints.

    Coordinates: metres, y up, face towards +z, the subject's left is +x. N, M, S and E differ from head to head.
    Raises ``ValueError`` with the field's name and shape if the arrays do not fit together.
    """

    name: str
    licence: str
    vertices: np.ndarray  # [N, 3] float32, rest shape with a closed mouth and open eyes
    triangles: np.ndarray  # [M, 3] int32, counter-clockwise seen from outside
    identity: np.ndarray  # [S, N, 3] float32, metres per unit
    identity_names: tuple[str, ...]
    expression: np.ndarray  # [E, N, 3] float32, metres per unit
    expression_names: tuple[str, ...]
    pose_correctives: np.ndarray  # [9 (J - 1), N, 3] float32; multiplies R - I of the non-root joints, row-major
    joint_regressor: np.ndarray  # [J, N] float32, rows sum to 1
    parents: np.ndarray  # [J] int32, -1 for the root
    joint_names: tuple[str, ...]
    skin_weights: np.ndarray  # [N, J] float32, rows sum to 1
    controls: Controls
    landmarks: Landmarks
    uv: np.ndarray  # [T, 2] float32, origin at the lower left
    uv_triangles: np.ndarray  # [M, 3] int32, rows of uv
    region: np.ndarray  # [M] uint8, index into region_names
    region_names: tuple[str, ...] = field(default=("head",))
    # FLAME regresses the joints from the expressed face, so a smile moves the eye joints a little. A rig's bones
    # cannot: heads that we build ourselves keep them where identity puts them.
    joints_follow_expression: bool = False

    def __post_init__(self) -> None:
        n, m, j = len(self.vertices), len(self.triangles), len(self.joint_names)
        c, landmarks = len(self.controls.names), len(self.landmarks.indices)
        expected = {
            "vertices": (self.vertices, (n, 3)),
            "triangles": (self.triangles, (m, 3)),
            "identity": (self.identity, (len(self.identity_names), n, 3)),
            "expression": (self.expression, (len(self.expression_names), n, 3)),
            "pose_correctives": (self.pose_correctives, (9 * (j - 1), n, 3)),
            "joint_regressor": (self.joint_regressor, (j, n)),
            "parents": (self.parents, (j,)),
            "skin_weights": (self.skin_weights, (n, j)),
            "controls.to_expression": (self.controls.to_expression, (c, len(self.expression_names))),
            "controls.to_joints": (self.controls.to_joints, (c, j, 3)),
            "landmarks.triangles": (self.landmarks.triangles, (landmarks,)),
            "landmarks.barycentric": (self.landmarks.barycentric, (landmarks, 3)),
            "uv": (self.uv, (len(self.uv), 2)),
            "uv_triangles": (self.uv_triangles, (m, 3)),
            "region": (self.region, (m,)),
        }
        for name, (array, shape) in expected.items():
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} holds numbers that are not finite")
        indices = {
            "triangles": (self.triangles, n),
            "landmarks.triangles": (self.landmarks.triangles, m),
            "uv_triangles": (self.uv_triangles, len(self.uv)),
            "region": (self.region, len(self.region_names)),
        }
        for name, (array, limit) in indices.items():
            if array.size and (array.min() < 0 or array.max() >= limit):
                raise ValueError(f"{name} points outside its range of {limit}")
        if self.parents[0] != -1 or any(not 0 <= p < i for i, p in enumerate(self.parents) if i):
            raise ValueError(f"parents {self.parents.tolist()} is not a tree in which parents come first")

    @property
    def unit(self) -> float:
        """Metres per unit of the paper, in which the head's largest extent is 1.556."""
        return float(np.ptp(self.vertices, axis=0).max()) / 1.556

    @property
    def centre(self) -> np.ndarray:  # [3] metres
        """Middle of the rest shape's bounding box: where cameras look."""
        return 0.5 * (self.vertices.min(0) + self.vertices.max(0))

    def triangles_in(self, words: tuple[str, ...]) -> np.ndarray:  # [M] bool
        """Triangles of the regions whose name contains one of the words."""
        wanted = [any(word in name for word in words) for name in self.region_names]
        return np.asarray(wanted)[self.region]

    def drive(self, sliders: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Named sliders to (expression [E], joints [J, 3]). An unknown name raises ``KeyError``."""
        expression = np.zeros(len(self.expression_names), np.float32)
        joints = np.zeros((len(self.joint_names), 3), np.float32)
        for name, value in sliders.items():
            if name not in self.controls.names:
                raise KeyError(name)
            row = self.controls.names.index(name)
            expression += value * self.controls.to_expression[row]
            joints += value * self.controls.to_joints[row]
        return expression, joints
