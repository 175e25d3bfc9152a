"""What is worn: headgear, glasses, masks, horns, earrings; round shapes sampled evenly and tied to the skull."""

from __future__ import annotations

import numpy as np

from .body import Body, vector
from .character import Character
from .cloud import Cloud, discs, threads
from .paint import rgb
from .vocabulary import COLOURS

Array = np.ndarray


class Tailor:
    """Makes surfaces of revolution around the head and other simple shapes for one body."""

    def __init__(self, body: Body, rng: np.random.Generator):
        self.body, self.rng = body, rng

    def revolve(
        self,
        centre: Array,  # [3]
        half_axes: Array,  # [2] x and z of the ellipse at radius 1
        profile: list[tuple[float, float]],  # (radius as a share of the ellipse, height above the centre in metres)
        colour: Array,
        count: int,
        radius: float = 0.0055,  # standard deviation of each Gaussian
        tilt: float = 0.0,  # radians, positive leans back
        arc: tuple[float, float] = (-np.pi, np.pi),  # of azimuth; 0 is the front
    ) -> Cloud:
        """A surface of revolution (squeezed to an ellipse) through the profile's points, evenly covered."""
        path = np.array(profile, float)
        reach = float(np.mean(half_axes))
        lengths = np.linalg.norm(np.diff(path * [reach, 1.0], axis=0), axis=1)
        # More points where the ring is wider
        middle = 0.5 * (path[1:, 0] + path[:-1, 0]) + 0.05
        piece = self.rng.choice(len(lengths), count, p=lengths * middle / (lengths * middle).sum())
        low, high = path[piece, 0], path[piece + 1, 0]
        u = self.rng.random(count)
        u = np.where(
            high + low > 1e-6,
            (np.sqrt(low**2 + u * (high**2 - low**2)) - low) / np.where(high == low, 1, high - low),
            u,
        )
        u = np.where(high == low, self.rng.random(count), u)
        spot = path[piece] + u[:, None] * (path[piece + 1] - path[piece])
        angle = arc[0] + (np.arange(count) * 0.61803398875 % 1.0) * (arc[1] - arc[0])
        around = np.stack([np.sin(angle) * half_axes[0], np.zeros(count), np.cos(angle) * half_axes[1]], 1)
        points = around * spot[:, :1] + np.array([0, 1, 0]) * spot[:, 1:]
        slope = (path[1:] - path[:-1])[piece] * [reach, 1.0]
        outward = np.stack([np.sin(angle), np.zeros(count), np.cos(angle)], 1)
        normals = outward * slope[:, 1:] - np.array([0, 1, 0]) * slope[:, :1]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        facing = np.sign((normals * (around + vector(0, 0.02, 0))).sum(1, keepdims=True) + 1e-9)
        turn = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
        points, normals = points @ turn.T, (normals * facing) @ turn.T
        # Cloth: light above, dark below, a little uneven
        tone = 0.93 + 0.09 * normals[:, 1:2] + self.rng.normal(0, 0.02, (count, 1))
        points = points + centre
        return discs(points, normals, radius, 0.0012, colour * tone, self.body.anchor(points))

    def tube(self, path: Array, radius: float, colour: Array, spacing: float = 0.0035) -> Cloud:
        """A round bar along the polyline ``path`` [L, 3]."""
        courses = np.diff(path, axis=0)
        lengths = np.linalg.norm(courses, axis=1)
        numbers = np.maximum(1, np.ceil(lengths / spacing).astype(int))
        rows = np.repeat(np.arange(len(lengths)), numbers)
        share = np.concatenate([(np.arange(n) + 0.5) / n for n in numbers])
        points = path[rows] + share[:, None] * courses[rows]
        return threads(points, courses[rows], spacing * 0.7, radius, colour, self.body.anchor(points), 0.95)

    def ball(self, centre: Array, radius: float, colour: Array, count: int = 120) -> Cloud:
        directions = self.rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        points = centre + radius * directions
        tone = 0.88 + 0.14 * directions[:, 1:2]
        return discs(points, directions, radius * 0.38, radius * 0.1, colour * tone, self.body.anchor(points))


def make_headgear(c: Character, body: Body, rng: np.random.Generator) -> list[Cloud]:
    if c.headgear == "none":
        return []
    colour = np.clip(rgb(COLOURS[c.headgear_colour]) * rng.uniform(0.93, 1.06), 0, 1)
    bulk = 0.012 if c.hair in ("curly", "afro", "long") else 0.007
    return _HEADGEAR[c.headgear](Tailor(body, rng), body, colour, bulk, rng)


def _line(body: Body, share: float = 0.6) -> float:
    """Height of a hat's lower edge: between the brows (0) and the hairline (1)."""
    return (1 - share) * body.landmarks[105][1] + share * body.landmarks[10][1]


def _band_colour(colour: Array, rng: np.random.Generator) -> Array:
    return rgb(COLOURS["black" if colour.mean() > 0.2 else "white"]) if rng.random() < 0.6 else colour * 0.6


def _hat(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body), bulk)
    top = body.skull[1] + body.skull_radii[1] - centre[1] + 0.025
    crown = t.revolve(
        centre, axes, [(1.0, 0.0), (0.96, 0.55 * top), (0.85, 0.95 * top), (0.0, top)], colour, 1500, tilt=0.1
    )
    brim = t.revolve(
        centre, axes, [(1.0, 0.0), (rng.uniform(1.4, 1.75), rng.uniform(-0.012, 0.006))], colour, 1300, tilt=0.1
    )
    band = t.revolve(centre, axes * 1.015, [(1.0, 0.003), (1.0, 0.02)], _band_colour(colour, rng), 350, 0.004, tilt=0.1)
    return [crown, brim, band]


def _top_hat(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body), bulk)
    height = rng.uniform(0.11, 0.15)
    crown = t.revolve(
        centre, axes, [(1.0, 0.0), (0.95, 0.5 * height), (1.02, height), (0.0, height)], colour, 2200, tilt=0.1
    )
    brim = t.revolve(centre, axes, [(1.0, 0.0), (1.38, 0.004)], colour, 900, tilt=0.1)
    band = t.revolve(
        centre, axes * 1.015, [(1.0, 0.004), (0.99, 0.026)], _band_colour(colour, rng), 400, 0.004, tilt=0.1
    )
    return [crown, brim, band]


def _cowboy_hat(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    clouds = _hat(t, body, colour, bulk, rng)
    centre, axes = body.ring(_line(body), bulk)
    brim = t.revolve(centre, axes, [(1.0, 0.0), (1.9, 0.0)], colour, 1900, tilt=0.1)
    away = np.abs(brim.points[:, 0]) / axes[0]
    lift = np.clip(away - 1, 0, None) ** 1.5 * 0.055
    brim = Cloud(
        brim.points + lift[:, None] * [0, 1, 0], brim.axes, brim.scales, brim.colours, brim.opacities, brim.triangles
    )
    return [clouds[0], brim, clouds[2]]


def _wizard_hat(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body), bulk)
    height = rng.uniform(0.17, 0.23)
    cone = t.revolve(centre, axes, [(1.0, 0.0), (0.55, 0.42 * height), (0.02, height)], colour, 2200, tilt=0.16)
    brim = t.revolve(centre, axes, [(1.0, 0.0), (1.6, -0.006)], colour, 1300, tilt=0.12)
    return [cone, brim]


def _santa_hat(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body), bulk)
    side = rng.choice([-1.0, 1.0])
    cone = t.revolve(centre, axes, [(1.0, 0.0), (0.85, 0.05), (0.5, 0.11), (0.08, 0.17)], colour, 2000, tilt=0.15)
    lean = np.clip((cone.points[:, 1] - centre[1]) / 0.17, 0, 1) ** 2
    bent = cone.points + lean[:, None] * [side * 0.09, -0.05, -0.02]
    cone = Cloud(bent, cone.axes, cone.scales, cone.colours, cone.opacities, cone.triangles)
    white = rgb(COLOURS["white"])
    rim = t.revolve(centre, axes + 0.006, [(1.0, -0.012), (1.08, 0.004), (1.0, 0.02)], white, 800, 0.007, tilt=0.1)
    return [cone, rim, t.ball(bent[lean.argmax()] + vector(side * 0.01, 0, 0), 0.02, white)]


def _cap(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body), bulk)
    top = body.skull[1] + body.skull_radii[1] - centre[1] + 0.012
    dome = t.revolve(
        centre,
        axes,
        [(1.0, 0), (0.95, 0.45 * top), (0.72, 0.8 * top), (0.4, 0.96 * top), (0.0, top)],
        colour,
        1800,
        tilt=0.12,
    )
    peak = t.revolve(centre, axes, [(1.0, 0.004), (1.75, -0.014)], colour * 0.9, 900, arc=(-0.75, 0.75))
    return [dome, peak]


def _beanie(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body, 0.45), bulk)
    top = body.skull[1] + body.skull_radii[1] - centre[1] + 0.024
    profile = [(1.0, 0), (1.0, 0.4 * top), (0.82, 0.75 * top), (0.45, 0.95 * top), (0.0, top)]
    clouds = [t.revolve(centre, axes, profile, colour, 2000, tilt=0.15)]
    clouds.append(t.revolve(centre, axes + 0.005, [(1.0, 0.0), (1.0, 0.03)], colour * 0.85, 650, tilt=0.15))
    if rng.random() < 0.4:
        clouds.append(
            t.ball(
                centre + vector(0, top + 0.012, -0.02), 0.022, colour if rng.random() < 0.5 else rgb(COLOURS["white"])
            )
        )
    return clouds


def _crown(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body, 1.0), bulk + 0.004)
    band = t.revolve(centre, axes, [(1.0, 0.0), (1.05, 0.035)], colour, 900, 0.0045)
    spikes = t.revolve(centre, axes, [(1.05, 0.03), (1.12, 0.075)], colour, 1500, 0.0035)
    angle = np.arctan2(spikes.points[:, 0] / axes[0], (spikes.points[:, 2] - centre[2]) / axes[1])
    height = (spikes.points[:, 1] - centre[1] - 0.03) / 0.045
    tooth = np.abs((angle / (2 * np.pi) * 9) % 1.0 - 0.5) * 2  # 0 in the middle of a spike
    spikes = spikes.pick(np.flatnonzero(tooth < 1 - height))
    jewels = []
    for number, azimuth in enumerate(np.linspace(-np.pi, np.pi, 8, endpoint=False)):
        place = centre + vector(np.sin(azimuth) * axes[0] * 1.04, 0.018, np.cos(azimuth) * axes[1] * 1.04)
        jewels.append(t.ball(place, 0.007, rgb(COLOURS["blue" if number % 2 else "red"]), 30))
    return [band, spikes, *jewels]


def _helmet(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body, 0.7), 0.012)
    top = body.skull[1] + body.skull_radii[1] - centre[1] + 0.022
    profile = [(1.0, 0.0), (0.97, 0.45 * top), (0.75, 0.8 * top), (0.42, 0.95 * top), (0.0, top)]
    dome = t.revolve(centre, axes, profile, colour, 2000)
    # Cheeks and neck are covered as well, the face is not
    guard = t.revolve(centre, axes, [(1.0, 0.005), (1.04, -0.085)], colour * 0.95, 1700, arc=(0.95, 2 * np.pi - 0.95))
    rim = t.revolve(centre, axes + 0.003, [(1.0, -0.002), (1.0, 0.012)], colour * 0.6, 500, 0.004)
    return [dome, guard, rim]


def _headband(t: Tailor, body: Body, colour: Array, bulk: float, rng) -> list[Cloud]:
    centre, axes = body.ring(_line(body, 0.75), bulk + 0.004)
    return [t.revolve(centre, axes, [(1.0, -0.004), (1.0, 0.024)], colour, 1100, 0.0048, tilt=0.1)]


_HEADGEAR = {
    "hat": _hat,
    "top hat": _top_hat,
    "cowboy hat": _cowboy_hat,
    "wizard hat": _wizard_hat,
    "santa hat": _santa_hat,
    "cap": _cap,
    "beanie": _beanie,
    "crown": _crown,
    "helmet": _helmet,
    "headband": _headband,
}


def make_eyewear(c: Character, body: Body, rng: np.random.Generator) -> list[Cloud]:
    if c.eyewear == "none":
        return []
    colour = rgb(COLOURS[c.eyewear_colour])
    tailor = Tailor(body, rng)
    if c.eyewear == "mask":
        return _mask(body, colour)
    if c.eyewear == "eyepatch":
        return _eyepatch(tailor, body, colour, rng)
    dark = c.eyewear == "sunglasses"
    front = max(body.landmarks[105][2], body.eyes[0, 2]) + 0.012
    wide, tall = rng.uniform(0.021, 0.026), rng.uniform(0.015, 0.023)
    angles = np.linspace(0, 2 * np.pi, 29)
    clouds = []
    for side, eye in zip((1, -1), body.eyes, strict=True):
        centre = np.array([eye[0], eye[1] - 0.002, front])
        # Glasses follow the face's curve a little
        bow = -0.25 * (np.cos(angles) * side).clip(0) * wide
        path = centre + np.stack([np.cos(angles) * wide, np.sin(angles) * tall, bow], 1)
        clouds.append(tailor.tube(path, 0.0021 if not dark else 0.0026, colour))
        if dark:
            radius, turn = np.sqrt(rng.random(150)), rng.uniform(0, 2 * np.pi, 150)
            lens = centre + np.stack([np.cos(turn) * wide * radius, np.sin(turn) * tall * radius, np.zeros(150)], 1)
            lens[:, 2] -= 0.25 * (side * (lens[:, 0] - centre[0])).clip(0)
            glass = np.clip(colour * 0.25, 0.02, 1)
            clouds.append(discs(lens, np.tile([[0, 0, 1.0]], (150, 1)), 0.0042, 0.0008, glass, body.anchor(lens), 0.9))
        ear = np.array(
            [side * (np.abs(body.landmarks[356][0]) + 0.006), body.landmarks[356][1] + 0.008, body.landmarks[356][2]]
        )
        hinge = centre + vector(side * wide, 0.004, -0.25 * wide)
        clouds.append(tailor.tube(np.stack([hinge, ear]), 0.002, colour))
    left, right = (np.array([eye[0] - np.sign(eye[0]) * wide, eye[1] + 0.003, front]) for eye in body.eyes)
    clouds.append(tailor.tube(np.stack([left, right]), 0.002, colour))
    return clouds


def _mask(body: Body, colour: Array) -> list[Cloud]:
    """A band around the eyes, just off the skin and moving with it, with holes for the eyes."""
    points = body.points
    middle = body.eyes[0, 1] + 0.004
    band = (
        body.mask("face", "nose", "brow", "lid", "ear", "scalp")
        & (np.abs(points[:, 1] - middle) < 0.026)
        & (points[:, 2] > -0.02)
    )
    holes = np.min([np.linalg.norm((points - eye) / [0.017, 0.0095, 0.03], axis=1) for eye in body.eyes], axis=0) < 1
    rows = np.flatnonzero(band & ~holes & ~body.mask("socket"))
    radius = np.clip(np.sqrt(body.areas[rows]) * 0.85, 0.0012, 0.005)
    tone = 0.9 + 0.12 * body.normals[rows, 1:2]
    return [
        discs(
            points[rows] + body.normals[rows] * 0.002,
            body.normals[rows],
            radius,
            0.0006,
            colour * tone,
            body.skin.triangles[rows],
        )
    ]


def _eyepatch(t: Tailor, body: Body, colour: Array, rng) -> list[Cloud]:
    side = int(rng.integers(2))
    eye = body.eyes[side] + vector(0, 0, 0.012)
    radius, turn = np.sqrt(rng.random(220)), rng.uniform(0, 2 * np.pi, 220)
    patch = eye + np.stack([np.cos(turn) * 0.021 * radius, np.sin(turn) * 0.019 * radius, -0.006 * radius], 1)
    clouds = [discs(patch, np.tile([[0, 0, 1.0]], (220, 1)), 0.004, 0.001, colour, body.anchor(patch))]
    centre, axes = body.ring(_line(body, 0.55), 0.004)
    clouds.append(t.revolve(centre, axes, [(1.0, 0.0), (1.0, 0.006)], colour, 350, 0.0028, tilt=0.12))
    return clouds


def make_extras(c: Character, body: Body, rng: np.random.Generator) -> list[Cloud]:
    """Horns, earrings, a clown's nose, an orc's tusks."""
    tailor, clouds = Tailor(body, rng), []
    if c.horns:
        bone = rgb((225, 210, 180)) if rng.random() < 0.6 else rgb((60, 50, 45))
        for side in (-1, 1):
            base = (
                body.skull
                + body.skull_radii * [side * 0.72, 0.62, 0.35]
                + ([side * 0.014, 0.01, 0] if c.headgear == "helmet" else 0)
            )
            share = np.linspace(0, 1, 9)[:, None]
            path = base + share * [side * 0.035, 0.075, 0.01] + np.sin(share * np.pi) * [side * 0.018, 0, 0]
            for piece in range(8):
                clouds.append(
                    tailor.tube(path[piece : piece + 2], 0.0105 * (1 - piece / 8.5), bone * (0.85 + 0.02 * piece))
                )
    if c.earrings:
        gold = rgb(COLOURS["gold"])
        for side in ("left", "right"):
            ear = body.points[body.mask(f"ear_{side}")]
            lobe = ear[ear[:, 1].argmin()]
            clouds.append(tailor.ball(lobe + vector(0, -0.009, 0), 0.0065, gold, 40))
    if c.red_nose:
        clouds.append(tailor.ball(body.nose_tip + vector(0, 0, 0.004), 0.0155, rgb((215, 20, 25)), 200))
    if c.makeup == "orc":
        for corner in (body.landmarks[61], body.landmarks[291]):
            base = corner * [0.75, 1, 1] + vector(0, -0.006, 0.006)
            clouds.append(
                tailor.tube(np.stack([base, base + vector(0, 0.02, 0.004)]), 0.0035, rgb((235, 225, 195)), 0.004)
            )
    return clouds
