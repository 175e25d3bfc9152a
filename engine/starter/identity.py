"""Faces: identity coefficients of the default head for a character."""

from __future__ import annotations

import re

import numpy as np

from ..heads.arrays import HeadArrays
from .character import Character

# Moving a whole head or stretching its neck makes nobody look different, and the strangest foreheads nobody's
_LEFT_OUT = re.compile(
    r"age/|gender/|ethnicity/|weight/|muscle/|trans-(in|out)|head-trans|neck|nubian|ear-shape|ear-trans"
)
_OPPOSITE = {
    "incr": "decr",
    "up": "down",
    "in": "out",
    "forward": "backward",
    "convex": "concave",
    "compress": "uncompress",
}
_SPREAD = 0.28
_WHOLE_HEAD = 0.45  # of that, for the shapes that change the head as a whole

# Components that make a role's face
_ROLE_FACES: dict[str, dict[str, float]] = {
    "orc": {
        "chin/chin-width-incr": 1.0,
        "chin/chin-prognathism-incr": 0.8,
        "nose/nose-width3-incr": 1.0,
        "head/head-square": 0.7,
    },
    "alien": {
        "head/head-invertedtriangular": 1.0,
        "forehead/forehead-nubian-incr": 0.35,
        "chin/chin-width-decr": 1.0,
        "nose/nose-scale-depth-decr": 1.0,
        "nose/nose-scale-horiz-decr": 0.9,
        "mouth/mouth-scale-horiz-decr": 1.0,
        "ears/l-ear-scale-decr": 1.0,
        "ears/r-ear-scale-decr": 1.0,
    },
    "witch": {"nose/nose-hump-incr": 1.0, "nose/nose-point-down": 0.6, "chin/chin-prominent-incr": 0.8},
    "skull": {"cheek/l-cheek-volume-decr": 1.0, "cheek/r-cheek-volume-decr": 1.0},
    "zombie": {"cheek/l-cheek-volume-decr": 0.7, "cheek/r-cheek-volume-decr": 0.7},
}


def sample_identity(character: Character, arrays: HeadArrays, rng: np.random.Generator) -> np.ndarray:  # [S]
    """A random face that suits the character's sex, age, build and origin. Left and right change together."""
    values: dict[str, float] = {}
    male = rng.uniform(0.6, 1.1)
    values["gender/male" if character.sex == "man" else "gender/female"] = male
    if character.age == "old":
        values["age/old"] = rng.uniform(0.7, 1.1)
        values["head/head-age-incr"] = rng.uniform(0.3, 1.0)
    elif character.age == "young":
        values["age/child"] = rng.uniform(0.05, 0.3)
    if character.origin != "european":
        values[f"ethnicity/{character.origin}"] = rng.uniform(0.6, 1.0)
    if character.build == "fat":
        values |= {
            "weight/max": 1.0,
            "head/head-fat-incr": rng.uniform(0.6, 1.1),
            "neck/neck-double-incr": rng.uniform(0.2, 0.9),
        }
    elif character.build == "thin":
        values |= {"weight/min": 1.0, "head/head-fat-decr": rng.uniform(0.5, 1.0)}
    drawn: dict[str, float] = {}
    for name in arrays.identity_names:
        if _LEFT_OUT.search(name):
            continue
        key = re.sub(r"/[lr]-", "/", name)
        end = key.rpartition("-")[2]
        if end in _OPPOSITE.values():
            continue
        if key not in drawn:
            drawn[key] = float(
                np.clip(
                    rng.normal(0, _SPREAD * (_WHOLE_HEAD if key.startswith(("head", "forehead")) else 1)), -0.7, 0.7
                )
            )
        value = drawn[key]
        if value < 0:
            if end not in _OPPOSITE:
                continue
            name, value = name.removesuffix(end) + _OPPOSITE[end], -value
        values[name] = values.get(name, 0.0) + value
    if character.ears == "pointed":
        values |= {f"ears/{side}-ear-shape-pointed": 1.3 for side in "lr"} | {
            f"ears/{side}-ear-scale-vert-incr": 1.2 for side in "lr"
        }
    values |= _ROLE_FACES.get(character.role, {})
    rows = {name: row for row, name in enumerate(arrays.identity_names)}
    identity = np.zeros(len(rows), np.float32)
    for name, value in values.items():
        if name in rows:
            identity[rows[name]] = value
    return identity
