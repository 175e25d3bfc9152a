"""The painted skin: one flat Gaussian per skin point, coloured by region, age and make-up, with soft baked shading."""

from __future__ import annotations

import numpy as np

from .body import Body, vector
from .character import Character
from .cloud import Cloud
from .vocabulary import COLOURS, EYES, HAIR, LIPS, SKIN

Colours = np.ndarray  # [P, 3] sRGB in 0..1


def rgb(colour: tuple[int, int, int]) -> np.ndarray:  # [3]
    return np.array(colour, float) / 255


def paint_skin(character: Character, body: Body, rng: np.random.Generator) -> Cloud:
    """The head itself, eyes, teeth and tongue included."""
    colours = skin_colours(character, body, rng)
    # Axes: the longest edge, the one across it, the normal. With 1.9 times the spread of its triangle each Gaussian
    # overlaps its neighbours into an even surface.
    edges = np.roll(body.corners, -1, 1) - body.corners
    longest = np.linalg.norm(edges, axis=2).argmax(1)
    first = edges[np.arange(len(edges)), longest]
    first = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
    axes = np.stack([first, np.cross(body.normals, first), body.normals], -1)
    away = np.matmul(body.corners - body.points[:, None], axes)  # [P, 3, 3]
    scales = np.maximum(np.sqrt(np.square(away).sum(1) / 12) * 1.9, 4e-4)
    return Cloud(body.points, axes, scales, colours, np.full(len(colours), 0.95), body.skin.triangles)


def skin_colours(c: Character, body: Body, rng: np.random.Generator) -> Colours:
    points = body.points
    skin = np.clip(rgb(SKIN[c.skin]) * rng.uniform(0.95, 1.04) + rng.normal(0, 0.008, 3), 0, 1)
    human = c.makeup not in ("robot", "statue", "skull", "alien")
    colours = np.repeat(skin[None], len(points), 0)

    def blend(weight: np.ndarray, colour: np.ndarray) -> None:
        colours[:] += np.clip(weight, 0, 1)[:, None] * (colour - colours)

    def near(place: np.ndarray, radius: float) -> np.ndarray:
        return np.exp(-0.5 * (np.linalg.norm(points - place, axis=1) / radius) ** 2)

    mouth = 0.5 * (body.landmarks[61] + body.landmarks[291])
    if human:
        flush = np.clip(skin * [1.03, 0.78, 0.76], 0, 1)
        for side in (-1, 1):
            blend(0.45 * near(body.eyes[0] * [side, 1, 1] + vector(side * 0.014, -0.038, 0), 0.014), flush)
        blend(0.35 * near(body.nose_tip, 0.01), flush)
    _age(c, body, skin, blend, near)
    if c.freckles:
        spots = (
            body.mask("face", "nose")
            & (np.abs(points[:, 1] - body.eyes[0, 1] + 0.025) < 0.03)
            & (rng.random(len(points)) < 0.16)
        )
        blend(0.35 * spots, skin * [0.6, 0.42, 0.32])
    if c.hair != "bald":
        amount = {"buzz": 0.55}.get(c.hair, 1.0) * (0.35 if c.headgear == "helmet" else 1.0)
        amount = 0.25 if c.hair == "mohawk" else amount
        blend(amount * body.mask("scalp"), 0.85 * rgb(HAIR[c.hair_colour]))
    if c.beard != "none":
        full = {"stubble": 0.4, "short": 0.85, "long": 0.9}.get(c.beard, 0.0)
        blend(full * body.mask("chin_beard", "moustache"), 0.9 * rgb(HAIR[c.beard_colour]))
    if human:
        blend(0.55 * body.brow_strip(c.sex), rgb(HAIR[c.hair_colour]) * 0.8)
    _makeup(c, body, skin, colours, blend, near, mouth, rng)
    colours *= _shading(body, 0.2 if c.makeup in ("robot", "statue") else 0.12)[:, None]

    # The lids' rims are darkened whatever the paint: lashes alone are too thin to give an eye an outline
    rim = body.mask("lid") & (np.linalg.norm(points[:, None] - body.eyes[None], axis=2).min(1) < 0.0135)
    if c.makeup != "statue":
        blend(0.55 * rim, 0.3 * skin)
    _organs(c, body, skin, colours)
    return colours


def _shading(body: Body, strength: float) -> np.ndarray:  # [P]
    """Light from above and before, the same all day: brighter brow and nose, darker under the chin."""
    light = body.normals @ np.array([0.0, 0.8, 0.35])
    return 1 - strength * 0.45 + strength * light


def _age(c: Character, body: Body, skin: np.ndarray, blend, near) -> None:
    if c.age != "old":
        return
    points = body.points
    brow_y, top = body.landmarks[105][1], body.landmarks[10][1]
    front = np.clip((points[:, 2] - 0.05) / 0.02, 0, 1) * (np.abs(points[:, 0]) < 0.045)
    height = (points[:, 1] - brow_y) / (top - brow_y)
    lines = (np.cos(height * 2 * np.pi * 2.5) > 0.55) & (height > 0.15) & (height < 0.95)
    blend(0.4 * lines * front, 0.6 * skin)
    for side, eye in zip((1, -1), body.eyes, strict=True):
        blend(0.45 * near(eye + vector(0, -0.016, 0), 0.007), 0.62 * skin)
        corner = body.landmarks[291 if side > 0 else 61]
        for share in np.linspace(0, 1, 5):
            place = (
                corner
                + vector(side * 0.008, 0, 0)
                + share * (body.nose_tip + vector(side * 0.018, 0, -0.02) - corner - [side * 0.008, 0, 0])
            )
            blend(0.3 * near(place, 0.004), 0.6 * skin)


def _makeup(c: Character, body: Body, skin, colours, blend, near, mouth, rng) -> None:
    points = body.points
    front = points[:, 2] > 0.02
    if c.makeup == "clown":
        paint = rgb(COLOURS[("blue", "red", "green", "black")[rng.integers(4)]])
        for eye in body.eyes:
            tall = np.linalg.norm((points - eye) / [0.014, 0.03, 0.05], axis=1) < 1
            blend(0.9 * tall, paint)
        wide = (np.linalg.norm((points - mouth) / [0.041, 0.024, 0.05], axis=1) < 1) & front
        blend(1.0 * wide, rgb(LIPS["red"]))
    elif c.makeup == "skull":
        for eye in body.eyes:
            blend(1.0 * ((np.linalg.norm((points - eye) / [0.021, 0.02, 0.05], axis=1) < 1) & front), np.full(3, 0.04))
        blend(1.0 * (np.linalg.norm((points - body.nose_tip) / [0.012, 0.02, 0.03], axis=1) < 1), np.full(3, 0.05))
        band = (np.abs(points[:, 1] - mouth[1]) < 0.012) & (np.abs(points[:, 0]) < 0.045) & front
        blend(0.95 * (band & (np.sin(points[:, 0] * 2 * np.pi / 0.012) > 0.1)), np.full(3, 0.08))
        hollow = np.linalg.norm((points - mouth - [0, 0.005, -0.02]) * [1, 1, 1], axis=1)
        blend(0.6 * ((np.abs(points[:, 0]) > 0.042) & (hollow < 0.065) & front), np.full(3, 0.2))
    elif c.makeup == "zombie":
        for eye in body.eyes:
            blend(0.75 * near(eye, 0.014), skin * [0.35, 0.28, 0.35])
        for _ in range(5):
            place = points[rng.integers(len(points))]
            blend(0.9 * near(place, rng.uniform(0.005, 0.011)), np.array([0.4, 0.08, 0.07]))
        colours *= 1 + 0.1 * np.sin(points @ rng.normal(0, 130, 3) + rng.uniform(0, 6))[:, None]
    elif c.makeup == "alien":
        for side, eye in zip((1, -1), body.eyes, strict=True):
            away = points - eye - [side * 0.004, 0.004, 0]
            slanted = np.stack(
                [away[:, 0] * 0.85 + side * away[:, 1] * 0.5, away[:, 1] * 0.85 - side * away[:, 0] * 0.5], 1
            )
            blend(1.0 * ((np.linalg.norm(slanted / [0.027, 0.016], axis=1) < 1) & front), np.full(3, 0.03))
    elif c.makeup == "robot":
        seams = np.abs(points[:, 0]) < 0.0018
        for height in (body.landmarks[105][1] + 0.02, body.eyes[0, 1] - 0.05, mouth[1] - 0.028):
            seams |= np.abs(points[:, 1] - height) < 0.0022
        seams |= np.abs(np.abs(points[:, 0]) - 0.05) < 0.0016
        blend(0.85 * seams, 0.25 * skin)
        for eye in body.eyes:
            blend(0.9 * (np.abs(np.linalg.norm((points - eye)[:, :2], axis=1) - 0.019) < 0.003), np.full(3, 0.15))
    elif c.makeup == "orc":
        for eye in body.eyes:
            blend(0.5 * near(eye, 0.012), 0.45 * skin)


def _organs(c: Character, body: Body, skin: np.ndarray, colours: Colours) -> None:
    """Lips, eyes and what is in the mouth: these keep their colours whatever is painted around them."""

    def fill(name: str, colour) -> None:
        colours[body.mask(name)] = colour

    stone = c.makeup == "statue"
    if c.lips:
        fill("lips", rgb(LIPS[c.lips]))
    elif c.makeup not in ("clown", "skull", "robot", "alien", "statue"):
        fill("lips", np.clip(skin * [0.88, 0.62, 0.62], 0, 1))
    fill("mouth_cavity", 0.5 * skin if stone else (0.28, 0.09, 0.09))
    fill("teeth", 0.9 * skin if stone else (0.93, 0.9, 0.84))
    fill("tongue", 0.8 * skin if stone else (0.75, 0.36, 0.36))
    black = c.makeup in ("alien", "skull") or c.eye_colour == "black"
    white = skin if stone else np.full(3, 0.03) if c.makeup in ("alien", "skull") else np.array([0.95, 0.94, 0.92])
    fill("eyeball", white)
    fill("iris", 0.8 * skin if stone else rgb(EYES[c.eye_colour]))
    fill(
        "pupil",
        0.55 * skin
        if stone
        else rgb(EYES[c.eye_colour])
        if c.makeup == "robot"
        else np.full(3, 0.05 if not black else 0.03),
    )
    fill("socket", 0.6 * skin)
