"""The head that needs no file from anyone: built from CC0 data of MakeHuman, in FLAME's form, and cached.

The neutral head is the mean of MakeHuman's young man and woman. The origin is the middle of its bounding box. Identity
components are named after MakeHuman's targets; +1 is the full target. Most come as pairs of opposites
(``nose/nose-width1-decr`` and ``-incr``), each meant for 0..1. The groups ``gender``, ``age``, ``ethnicity``,
``weight``, ``muscle`` are differences from the neutral head with the head kept in its place; the targets of the neck
keep the head in its place too.

The expression is ARKit's 52 in the order of ``expressions.ARKIT_NAMES``. Two kinds are carried by joints: ``jawOpen``
turns the jaw by 26 degrees, and its own row is zero, because the pose correctives of the jaw hold the rest;
``eyeLook*`` turn the eyeballs, and their rows move the lids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import platformdirs

from ..avatar.archive import read_archive
from ..avatar.atomic import atomic_write
from ..errors import UserError
from . import default_contacts, default_joints, default_regions
from .arrays import JOINT_NAMES, JOINT_PARENTS, Controls, HeadArrays, Landmarks
from .assets import MANIFEST, Assets, find_assets
from .default_landmarks import build_landmarks
from .default_mesh import EYE_LEFT, EYE_RIGHT, HeadMesh, cut_head
from .expressions import ARKIT_NAMES, MIRRORED
from .makehuman import parse_mesh, parse_mirror, parse_target

BUILDER = ("default_*.py", "makehuman.py", "expressions.py")  # sources whose change makes older caches invalid
METRES = 0.1  # per decimetre
_UNITS = "faceunits01/targets/faceunits/"
_TARGETS = "mpfb2/targets/"
_MACROS = f"{_TARGETS}macrodetails/"
AVERAGE = "averagemuscle-averageweight"
_JAW_SINE = 9 * (default_joints.JAW - 1) + 3 * 2 + 1  # feature (R - I)[2, 1] of the jaw: the sine of its opening


def default_head(cache_dir: Path | None = None) -> HeadArrays:
    """The default head, from the cache in ``cache_dir`` (default: the user's cache folder) or built into it.

    Raises ``UserError`` if the CC0 data is neither installed nor to be fetched, or is damaged.
    """
    folder = Path(cache_dir) if cache_dir is not None else Path(platformdirs.user_cache_dir("headstudio"))
    path = folder / f"default-head-{_cache_key()}.npz"
    with contextlib.suppress(UserError, ValueError, KeyError, TypeError):  # missing or damaged: built anew
        return _load(path)
    head = build_default_head(find_assets(folder))
    with contextlib.suppress(UserError, OSError):  # a cache that cannot be written only costs time
        folder.mkdir(parents=True, exist_ok=True)
        _save(path, head)
    return head


def _cache_key() -> str:
    """Changes with the builder's sources and with the files that it reads."""
    here = Path(__file__).parent
    sources = sorted(path for pattern in BUILDER for path in here.glob(pattern))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in [*sources, MANIFEST])).hexdigest()[:16]


class Sources:
    """The parsed files: base mesh, mirror table, targets."""

    def __init__(self, assets: Assets):
        self.assets = assets
        self.base = parse_mesh(assets.read("mpfb2/3dobjs/base.obj"))
        self.mirror = parse_mirror(assets.read("mpfb2/mesh_metadata/hm08.mirror"), len(self.base.vertices))
        self._macros: dict[str, np.ndarray] = {}  # used several times each; the others once

    def target(self, name: str) -> np.ndarray:
        """Displacement [V, 3] of the base mesh."""
        if name in self._macros:
            return self._macros[name]
        field = parse_target(self.assets.read(name), len(self.base.vertices))
        if name.startswith(_MACROS):
            self._macros[name] = field
        return field

    def body(self, sex: str, age: str = "young", people: str = "caucasian", build: str = AVERAGE) -> np.ndarray:
        """MakeHuman's macro targets for a kind of person [V, 3]: people and build are independent layers."""
        face = self.target(f"{_MACROS}{people}-{sex}-{age}.target.gz")
        return face + self.target(f"{_MACROS}universal-{sex}-{age}-{build}.target.gz")

    def mean_body(self, **kind: str) -> np.ndarray:
        """The mean of woman and man."""
        return 0.5 * (self.body("female", **kind) + self.body("male", **kind))


def neutral_mesh(sources: Sources) -> HeadMesh:
    """The mean of the young woman's and the young man's head, lips closed."""
    mesh = cut_head(sources.base, sources.base.vertices + sources.mean_body(), sources.mirror)
    lips = mesh.loop(default_regions.LIP_CONTACT)
    closing = default_contacts.meet(mesh, mesh.neutral, lips, reach=4, axes=(1,), only_open=True)
    return replace(mesh, neutral=mesh.neutral + 0.5 * (closing + mesh.reflect(closing)))


def build_default_head(assets: Assets) -> HeadArrays:
    """Builds the head from the files of ``assets``."""
    sources = Sources(assets)
    mesh = neutral_mesh(sources)
    identity = _identity(sources, mesh)
    shapes = _shapes(sources, mesh)
    regressor = default_joints.joint_regressor(mesh)
    jaw = default_joints.solve_jaw(mesh, shapes["jawOpen"])
    controls, expression = _controls(mesh, shapes, regressor @ mesh.neutral)
    correctives = np.zeros((9 * (len(JOINT_NAMES) - 1), len(mesh.neutral), 3))
    correctives[_JAW_SINE] = jaw.corrective
    region = default_regions.label(mesh)
    middle = 0.5 * (mesh.neutral.min(0) + mesh.neutral.max(0))

    def metres(array: np.ndarray) -> np.ndarray:
        return (METRES * array).astype(np.float32)

    return HeadArrays(
        name="default",
        licence="CC0-1.0",
        vertices=metres(mesh.neutral - middle),
        triangles=mesh.triangles.astype(np.int32),
        identity=metres(np.stack(list(identity.values()))),
        identity_names=tuple(identity),
        expression=metres(expression),
        expression_names=ARKIT_NAMES,
        pose_correctives=metres(correctives),
        joint_regressor=regressor.astype(np.float32),
        parents=np.array(JOINT_PARENTS, np.int32),
        joint_names=JOINT_NAMES,
        skin_weights=default_joints.skin_weights(mesh, jaw).astype(np.float32),
        controls=controls,
        landmarks=build_landmarks(mesh, region, default_regions.REGION_NAMES),
        uv=mesh.uv.astype(np.float32),
        uv_triangles=mesh.uv_triangles.astype(np.int32),
        region=region,
        region_names=default_regions.REGION_NAMES,
    )


def _identity(sources: Sources, mesh: HeadMesh) -> dict[str, np.ndarray]:
    """Identity components [N, 3] by name: kinds of person first, then the region targets."""
    neutral = sources.mean_body()
    kinds = {
        "gender/female": sources.body("female"),
        "gender/male": sources.body("male"),
        "age/baby": sources.mean_body(age="baby"),
        "age/child": sources.mean_body(age="child"),
        "age/old": sources.mean_body(age="old"),
        "ethnicity/african": sources.mean_body(people="african"),
        "ethnicity/asian": sources.mean_body(people="asian"),
        "weight/max": sources.mean_body(build="averagemuscle-maxweight"),
        "weight/min": sources.mean_body(build="averagemuscle-minweight"),
        "muscle/max": sources.mean_body(build="maxmuscle-averageweight"),
        "muscle/min": sources.mean_body(build="minmuscle-averageweight"),
    }
    identity = {}
    for name, body in kinds.items():
        field = mesh.restrict(body - neutral)
        identity[name] = field - field.mean(0)  # a child's head is lower in the world: keep it in its place
    eyes = np.concatenate([mesh.vertices_of(EYE_LEFT), mesh.vertices_of(EYE_RIGHT)])
    for name in sources.assets.names(_TARGETS):
        if not name.startswith(_MACROS):
            short = name.removeprefix(_TARGETS).removesuffix(".target.gz")
            field = mesh.restrict(sources.target(name))
            identity[short] = field - field[eyes].mean(0) if short.startswith("neck/") else field
    return identity


def _shapes(sources: Sources, mesh: HeadMesh) -> dict[str, np.ndarray]:
    """ARKit's 52 as displacements [N, 3], symmetric, with lids that meet in a blink."""
    shapes = {name: mesh.restrict(sources.target(f"{_UNITS}{name}.target")) for name in ARKIT_NAMES}
    _symmetrise(mesh, shapes)
    lid = mesh.loop(default_regions.LID_MARGIN)
    blinked = mesh.neutral + shapes["eyeBlinkLeft"]
    shapes["eyeBlinkLeft"] += default_contacts.meet(mesh, blinked, lid, reach=5, axes=(1, 2), only_open=False)
    shapes["eyeBlinkRight"] = mesh.reflect(shapes["eyeBlinkLeft"])
    return shapes


def _symmetrise(mesh: HeadMesh, shapes: dict[str, np.ndarray]) -> None:
    """Makes ARKit's pairs exact mirror images of each other, and the rest of the expressions symmetric.

    The face units were sculpted on both sides and rounded; they differ by up to 2 mm.
    """
    pairs = dict(MIRRORED)
    for name in ARKIT_NAMES:
        if name not in pairs.values():
            other = pairs.get(name, name)
            shapes[name] = 0.5 * (shapes[name] + mesh.reflect(shapes[other]))
            shapes[other] = mesh.reflect(shapes[name])


def _controls(mesh: HeadMesh, shapes: dict[str, np.ndarray], centres: np.ndarray) -> tuple[Controls, np.ndarray]:
    """The sliders, and the expression [E, N, 3] without what the joints do; ``centres`` [J, 3]."""
    to_joints = np.zeros((len(ARKIT_NAMES), len(JOINT_NAMES), 3))
    expression = np.stack([shapes[name] for name in ARKIT_NAMES])
    opening = ARKIT_NAMES.index("jawOpen")
    to_joints[opening, default_joints.JAW, 0] = default_joints.JAW_ANGLE
    expression[opening] = 0
    for joint, group in (
        (default_joints.EYE_LEFT, EYE_LEFT),
        (default_joints.EYE_RIGHT, EYE_RIGHT),
    ):
        eyeball = mesh.vertices_of(group)  # the first is the pole in front
        for row in range(len(ARKIT_NAMES)):
            moved = expression[row, eyeball]
            if np.abs(moved).max() > 0:
                to_joints[row, joint] = default_joints.eye_turn(mesh.neutral[eyeball[0]], moved[0], centres[joint])
                expression[row, eyeball] = 0
    to_expression = np.eye(len(ARKIT_NAMES), dtype=np.float32)
    to_expression[opening, opening] = 0
    return Controls(ARKIT_NAMES, to_expression, to_joints.astype(np.float32)), expression


_NESTED = {"controls": Controls, "landmarks": Landmarks}


def _save(path: Path, head: HeadArrays) -> None:
    arrays, texts = {}, {}
    for prefix, record in (("", head), ("controls.", head.controls), ("landmarks.", head.landmarks)):
        for item in fields(record):
            value = getattr(record, item.name)
            if isinstance(value, np.ndarray):
                arrays[prefix + item.name] = value
            elif item.name not in _NESTED:
                texts[prefix + item.name] = value
    with atomic_write(path) as file:
        np.savez(file, texts=np.array(json.dumps(texts)), **arrays)


def _load(path: Path) -> HeadArrays:
    if not os.path.exists(path):
        raise UserError(f"There is no {path}.")
    arrays = read_archive(path, "cached head")
    values = {**arrays, **json.loads(str(arrays.pop("texts")))}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    def record(kind, prefix: str):
        return kind(**{item.name: values[prefix + item.name] for item in fields(kind)})

    nested = {name: record(kind, f"{name}.") for name, kind in _NESTED.items()}
    return HeadArrays(**nested, **{i.name: values[i.name] for i in fields(HeadArrays) if i.name not in nested})
