"""Hair, beards, brows, lashes: thin Gaussians along threads that grow from the skin, soft ones in a shell around it."""

from __future__ import annotations

import numpy as np

from .body import Body, points_in, scatter, vector
from .character import Character
from .cloud import Cloud, discs, joined, threads
from .paint import rgb
from .vocabulary import HAIR

Array = np.ndarray


def grow_hair(c: Character, body: Body, rng: np.random.Generator) -> list[Cloud]:
    """The hair on the head, as far as headgear leaves it free."""
    if c.hair in ("bald", "buzz"):
        return []
    colour = rgb(HAIR[c.hair_colour]) * rng.uniform(0.93, 1.05)
    covered = c.headgear not in ("none", "headband", "crown")
    if covered:
        style = "long" if c.hair in ("long", "curly", "ponytail", "afro") else "sides"
        clouds = [_STYLES[style](body, colour, rng, 0.5)]
        return [_below(cloud, _hat_line(body) + 0.004) for cloud in clouds]
    return [_shell(body, colour, rng, 0.006), _STYLES[c.hair](body, colour, rng, 1.0)]


def _hat_line(body: Body) -> float:
    return 0.4 * body.landmarks[105][1] + 0.6 * body.landmarks[10][1]


def _below(cloud: Cloud, height: float) -> Cloud:
    return cloud.pick(np.flatnonzero(cloud.points[:, 1] < height))


def _roots(body: Body, mask: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Points [K, 3] on the masked skin, their normals, and their triangles."""
    rows = scatter(body.areas * mask, count, rng)
    return points_in(body.corners[rows], rng), body.normals[rows], body.skin.triangles[rows]


def _shell(body: Body, colour: Array, rng: np.random.Generator, height: float) -> Cloud:
    """A thin cap that hides the scalp under every hairstyle but the shaved ones."""
    points, normals, triangles = _roots(body, body.mask("scalp"), 900, rng)
    shades = colour * rng.uniform(0.82, 1.0, (len(points), 1))
    return discs(points + normals * height, normals, 0.007, 0.003, shades, triangles)


def _push_out(points: Array, body: Body, margin: float) -> Array:
    """Points inside the head's rough shape (skull and neck) moved out to its surface."""
    centre, radii = body.skull, body.skull_radii + margin
    away = (points - centre) / radii
    length = np.linalg.norm(away, axis=1, keepdims=True)
    points = np.where(length < 1, centre + away / np.maximum(length, 1e-6) * radii, points)
    # Below the skull the jaw and the neck: an upright cylinder
    low = points[:, 1] < centre[1]
    flat = (points - centre)[:, [0, 2]] / (radii[[0, 2]] * [0.95, 0.8])
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    pushed = points.copy()
    pushed[:, [0, 2]] = centre[[0, 2]] + flat / np.maximum(length, 1e-6) * radii[[0, 2]] * [0.95, 0.8]
    return np.where(((length[:, 0] < 1) & low)[:, None], pushed, points)


def _strands(
    body: Body,
    roots: tuple[Array, Array, Array],
    directions: Array,  # [K, 3] in which they leave
    length: Array | float,  # metres
    colour: Array,
    rng: np.random.Generator,
    segments: int = 6,
    gravity: float = 0.0,  # how fast they turn down, 0..1 per segment
    curl: float = 0.0,  # how much they wind
    width: float = 0.003,
    margin: float = 0.008,
) -> Cloud:
    """Threads of ``segments`` Gaussians each, that leave the skin, bend down and stay outside the head."""
    points, _, triangles = roots
    step = (np.broadcast_to(length, len(points)) * rng.uniform(0.8, 1.15, len(points)) / segments)[:, None]
    heading = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)
    shade = rng.uniform(0.82, 1.12, (len(points), 1))
    places, courses, tones = [], [], []
    for segment in range(segments):
        bent = heading + gravity * np.array([0, -1.0, 0]) + curl * rng.standard_normal(heading.shape)
        heading = bent / np.maximum(np.linalg.norm(bent, axis=1, keepdims=True), 1e-9)
        following = _push_out(points + heading * step, body, margin)
        places.append(0.5 * (points + following))
        course = following - points
        courses.append(np.where(np.linalg.norm(course, axis=1, keepdims=True) > 1e-5, course, heading * 1e-3))
        # Darker at the roots and underneath, as if the hair shaded itself
        tones.append(colour * shade * (0.88 + 0.16 * (segment + 1) / segments))
        points = following
    places, courses = np.concatenate(places), np.concatenate(courses)
    lengths = np.maximum(np.linalg.norm(courses, axis=1) * 0.55, width)
    return threads(places, courses, lengths, width, np.concatenate(tones), np.tile(triangles, segments))


def _short(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    roots = _roots(body, body.mask("scalp"), int(700 * share), rng)
    parting = rng.choice([-1.0, 1.0])
    swept = roots[1] * 0.55 + np.array([0.35 * parting, 0.0, rng.uniform(-0.6, 0.3)])
    return _strands(body, roots, swept, rng.uniform(0.022, 0.04), colour, rng, 3, 0.15, 0.12, 0.0034, 0.006)


def _sides(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    roots = _roots(body, body.mask("scalp"), int(900 * share), rng)
    return _strands(body, roots, roots[1] * 0.3 + vector(0, -0.6, 0), 0.03, colour, rng, 3, 0.2, 0.1, 0.0036, 0.005)


def _long(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    points, normals, triangles = _roots(body, body.mask("scalp"), int(620 * max(share, 0.8)), rng)
    aside = np.sign(points[:, :1] + 1e-6) * np.array([[1.0, 0, 0]])
    forward = np.clip(points[:, 2:] - body.skull[2], 0, None) * np.array([[0, 0, -8.0]])
    length = rng.uniform(0.17, 0.25)
    # Hair from the forehead goes to the sides, not over the face
    return _strands(
        body,
        (points, normals, triangles),
        normals * 0.5 + aside * 0.7 + forward,
        length,
        colour,
        rng,
        9,
        0.33,
        0.04,
        0.0042,
        0.013,
    )


def _curly(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    points, normals, triangles = _roots(body, body.mask("scalp"), int(420 * share), rng)
    return _strands(
        body, (points, normals, triangles), normals, rng.uniform(0.06, 0.11), colour, rng, 8, 0.12, 0.75, 0.0048, 0.012
    )


def _afro(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    points, normals, triangles = _roots(body, body.mask("scalp"), int(2600 * share), rng)
    away = points - body.skull
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    depth = np.sqrt(rng.random((len(points), 1)))
    size = rng.uniform(0.045, 0.075)
    # Less in front, so that the forehead stays free
    size = size * np.clip(1.1 - 6 * np.clip(points[:, 2:] - 0.045, 0, None), 0.5, 1)
    shades = colour * rng.uniform(0.6, 1.1, (len(points), 1)) * (0.55 + 0.5 * depth)
    place = points + (0.5 * normals + 0.5 * away) * size * depth
    return threads(place, rng.standard_normal((len(points), 3)), 0.007, 0.0055, shades, triangles)


def _mohawk(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    crest = body.mask("scalp") & (np.abs(body.points[:, 0]) < 0.014)
    roots = _roots(body, crest, int(320 * share), rng)
    up = roots[1] * [0.15, 1, 1] + vector(0, 0.25, 0)
    return _strands(body, roots, up, rng.uniform(0.06, 0.095), colour, rng, 6, 0.0, 0.05, 0.0042, 0.0)


def _tied(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    """Hair drawn back close to the head."""
    roots = _roots(body, body.mask("scalp"), int(700 * share), rng)
    return _strands(
        body, roots, roots[1] * 0.25 + vector(0, 0.1, -0.9), 0.035, colour, rng, 3, 0.0, 0.03, 0.0036, 0.008
    )


def _knot(body: Body, height: float) -> tuple[Array, Array]:
    """A place at the back of the head and its triangle."""
    place = body.skull + body.skull_radii * [0, height, -np.sqrt(max(0.05, 1 - height**2))]
    return place, body.anchor(place[None])


def _ponytail(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    place, triangle = _knot(body, rng.uniform(0.1, 0.6))
    count = 130
    start = place + rng.normal(0, 0.008, (count, 3)) + vector(0, 0, -0.012)
    heading = np.array([0, 0.35, -1.0]) + rng.normal(0, 0.18, (count, 3))
    roots = (start, heading, np.repeat(triangle, count))
    tail = _strands(body, roots, heading, rng.uniform(0.16, 0.24), colour, rng, 9, 0.3, 0.04, 0.0045, 0.02)
    return joined([_tied(body, colour, rng, share), tail])


def _bun(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    place, triangle = _knot(body, rng.uniform(0.55, 0.98))
    count, radius = 420, rng.uniform(0.024, 0.034)
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    out = (place - body.skull) / np.linalg.norm(place - body.skull)
    points = place + out * radius * 0.8 + directions * radius
    winding = np.cross(directions, out) + rng.normal(0, 0.2, (count, 3))
    shades = colour * rng.uniform(0.75, 1.1, (count, 1)) * (0.85 + 0.2 * directions[:, 1:2])
    knot = threads(points, winding, 0.007, 0.004, shades, np.repeat(triangle, count))
    return joined([_tied(body, colour, rng, share), knot])


def _spiky(body: Body, colour: Array, rng: np.random.Generator, share: float) -> Cloud:
    tips, normals, _ = _roots(body, body.mask("scalp") & (body.points[:, 1] > body.eyes[0, 1] + 0.01), 42, rng)
    points, own, triangles = _roots(body, body.mask("scalp"), int(900 * share), rng)
    nearest = np.linalg.norm(points[:, None] - tips[None], axis=2).argmin(1)
    target = tips[nearest] + (normals[nearest] + vector(0, 0.35, 0)) * rng.uniform(0.05, 0.075)
    return _strands(
        body,
        (points, own, triangles),
        target - points,
        np.linalg.norm(target - points, axis=1),
        colour,
        rng,
        4,
        0,
        0.02,
        0.0034,
        0.0,
    )


_STYLES = {
    "short": _short,
    "sides": _sides,
    "long": _long,
    "curly": _curly,
    "afro": _afro,
    "mohawk": _mohawk,
    "ponytail": _ponytail,
    "bun": _bun,
    "spiky": _spiky,
}


def grow_beard(c: Character, body: Body, rng: np.random.Generator) -> list[Cloud]:
    """Beard and moustache; stubble is only painted."""
    if c.beard in ("none", "stubble"):
        return []
    colour = rgb(HAIR[c.beard_colour]) * rng.uniform(0.93, 1.05)
    chin, lip = body.mask("chin_beard"), body.mask("moustache")
    clouds = []
    if c.beard in ("moustache", "goatee", "short", "long"):
        roots = _roots(body, lip, 260 if c.beard == "moustache" else 160, rng)
        aside = np.sign(roots[0][:, :1]) * np.array([[0.9, 0, 0]])
        length = rng.uniform(0.02, 0.032) if c.beard == "moustache" else 0.016
        heading = roots[1] * 0.5 + aside + vector(0, -0.3, 0)
        clouds.append(_threads_only(roots, heading, length, colour, rng, 3, 0.0026))
    if c.beard in ("goatee", "short", "long"):
        middle = np.abs(body.points[:, 0]) < 0.022 if c.beard == "goatee" else np.abs(body.points[:, 0]) < 1
        count = {"goatee": 220, "short": 620, "long": 620}[c.beard]
        roots = _roots(body, chin & middle, count, rng)
        longest = {"goatee": 0.035, "short": 0.022, "long": rng.uniform(0.075, 0.14)}[c.beard]
        # Longest at the chin
        low = np.clip((body.landmarks[17][1] - roots[0][:, 1]) / 0.035, 0, 1)
        length = longest * (0.35 + 0.65 * low) if c.beard == "long" else np.full(count, longest)
        heading = roots[1] * 0.6 + vector(0, -0.5, 0.15)
        clouds.append(_threads_only(roots, heading, length, colour, rng, 6 if c.beard == "long" else 3, 0.0034, 0.25))
    return clouds


def _threads_only(
    roots, heading: Array, length, colour: Array, rng, segments: int, width: float, gravity: float = 0.1
) -> Cloud:
    """Strands that need not be kept out of the skull, which is far from the chin."""
    points, _, triangles = roots
    step = (np.broadcast_to(length, len(points)) * rng.uniform(0.8, 1.15, len(points)) / segments)[:, None]
    shade = rng.uniform(0.75, 1.12, (len(points), 1))
    places, courses, tones = [], [], []
    for segment in range(segments):
        heading = (
            heading / np.linalg.norm(heading, axis=1, keepdims=True)
            + vector(0, -gravity, 0)
            + rng.normal(0, 0.1, heading.shape)
        )
        heading = heading / np.linalg.norm(heading, axis=1, keepdims=True)
        places.append(points + 0.5 * heading * step)
        courses.append(heading)
        tones.append(colour * shade * (0.88 + 0.16 * (segment + 1) / segments))
        points = points + heading * step
    lengths = np.tile(np.maximum(0.55 * step[:, 0], width), segments)
    return threads(
        np.concatenate(places),
        np.concatenate(courses),
        lengths,
        width,
        np.concatenate(tones),
        np.tile(triangles, segments),
    )


def grow_brows(c: Character, body: Body, rng: np.random.Generator) -> list[Cloud]:
    """Hairs that lie along each brow, outwards and a little up, thinning out towards both ends."""
    if c.makeup in ("robot", "alien", "skull", "statue"):
        return []
    points, normals, triangles = _roots(body, body.brow_strip(c.sex), 190, rng)
    outwards = np.sign(points[:, :1]) * np.array([[1.0, 0, 0]]) + vector(0, 0.25, 0) + 0.15 * normals
    colours = rgb(HAIR[c.hair_colour]) * rng.uniform(0.7, 0.95, (len(points), 1))
    return [threads(points + normals * 0.0012, outwards, 0.0032, 0.0007, colours, triangles, 0.75)]


def grow_lashes(c: Character, body: Body, rng: np.random.Generator) -> list[Cloud]:
    """Lashes at the rims of the upper lids, which they follow when the lids close."""
    if c.makeup in ("robot", "alien", "skull", "statue"):
        return []
    eye = body.eyes[(body.points[:, 0] < 0).astype(int)]  # [P, 3]
    away = body.points - eye
    rim = body.mask("lid") & (np.linalg.norm(away, axis=1) < 0.0135) & (away[:, 1] > 0.001)
    if not rim.any():
        return []
    points, normals, triangles = _roots(body, rim, 70 if c.sex == "woman" else 40, rng)
    aside = np.sign(points[:, :1] - body.eyes[(points[:, 0] < 0).astype(int), :1]) * np.array([[0.4, 0, 0]])
    heading = vector(0, 0.45, 1.0) + aside + 0.3 * normals
    length = 0.0022 if c.sex == "woman" else 0.0014
    heading = heading / np.linalg.norm(heading, axis=1, keepdims=True)
    return [threads(points + heading * length, heading, length, 0.0004, np.full(3, 0.08), triangles, 0.8)]
