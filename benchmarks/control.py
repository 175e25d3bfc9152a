"""Do the prior's own samples obey the landmark map? Lids, lips, gaze and the head's turn, read off the pictures.

    python -m benchmarks.control [--model FOLDER] [--seeds 3] [--out out/control]

Each prompt is drawn under maps that differ in one thing alone, from the same noise. What is then measured knows nothing
of the map but where a thing must show:

- lips, lids: the picture within the opened lips' (lids') line must change more, against the picture under the map with
  them closed, than the skin of the cheeks does; and it must show what lies behind: colours farther from the skin's.
- gaze: how far to the side the darkest part of each eye is, against how far the iris is on the map: their correlation.
- turn: how far to the side of the picture's head its skin is, against the sine of the head's turn: their correlation.

Writes ``results/control-KIND.json`` and a sheet of the samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from headstudio.camera import Camera, orbit
from headstudio.condition.landmarks import landmark_points
from headstudio.condition.picture import condition_image
from headstudio.evaluate.colours import srgb_to_lab
from headstudio.export.pictures import write_png
from headstudio.guidance.prior import Prior
from headstudio.guidance.prompts import VIEW_SUFFIXES, view_index
from headstudio.heads.default_head import default_head
from headstudio.heads.head import Head
from headstudio.starter import model_folder
from headstudio.starter.samples import sample

from benchmarks.common import machine, write_results

# No beards, hats or glasses, which may hide what is looked for, and hair of another colour than the skin
PROMPTS = (
    "a young woman with short black hair and pale skin",
    "a man with short brown hair",
    "an African woman with curly black hair",
    "a man with long black hair and tan skin",
    "an old woman with white hair",
    "a man with blue skin and blonde hair",
)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
IRISES = (468, 473)  # of the same two eyes
LIP_CORNERS = (61, 291)  # on the sides of the same two eyes
GAZES = (-0.8, -0.4, 0.0, 0.4, 0.8)
TURNS = (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0)  # degrees
LIKE = 12.0  # CIE76 from the face's colour within which a pixel counts as skin, from the background's as background


@dataclass(frozen=True)
class Map:
    """A landmark map [S, S, 3] with the landmarks' pixels by their MediaPipe index."""

    picture: torch.Tensor
    pixels: dict[int, np.ndarray]
    view: str  # what the prompt says of it


class Maps:
    """Draws the default head's map for sliders and a camera's azimuth."""

    def __init__(self, prior: Prior):
        self.arrays, self.prior = default_head(), prior
        self.head = Head(self.arrays)

    def draw(self, sliders: dict[str, float], azimuth: float = 0.0) -> Map:
        expression, joints = (torch.from_numpy(part)[None] for part in self.arrays.drive(sliders))
        vertices = self.head(expression, joints)
        size, centre = self.prior.condition_size, torch.as_tensor(self.arrays.centre).float()
        camera: Camera = orbit([azimuth], 5.0, 2.4 * self.arrays.unit, 48.0, size, centre)
        picture, _ = condition_image(self.arrays, vertices, camera, size, self.prior.all_round)
        pixels, _ = camera.project(landmark_points(self.arrays, vertices))
        indices = self.arrays.landmarks.indices.tolist()
        view = VIEW_SUFFIXES[int(view_index(torch.tensor([azimuth]))[0])]
        return Map(picture[0], dict(zip(indices, pixels[0].numpy(), strict=True)), view)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=model_folder(), help="diffusers folder; default the built-in prior"
    )
    parser.add_argument("--seeds", type=int, default=3, help="samples of each prompt")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("out/control"), help="folder of the sheet")
    arguments = parser.parse_args()
    description = machine()
    prior = Prior.load(arguments.model, device="cpu")
    maps = Maps(prior)

    def pictures(chosen: list[Map]) -> list[list[np.ndarray]]:
        """Per prompt and seed, a picture [S, S, 3] in 0..1 of each map, all from the same noise."""
        return [
            [
                sample(
                    prior,
                    [prompt + one.view],
                    one.picture[None],
                    torch.ones(1),
                    arguments.steps,
                    arguments.guidance,
                    seed,
                )[0].numpy()
                for one in chosen
            ]
            for prompt in PROMPTS
            for seed in range(arguments.seeds)
        ]

    results, sheet = {}, []
    for name, measure in {"lips": lips, "lids": lids, "gaze": gaze, "turn": turn}.items():
        results[name], drawn = measure(maps, pictures)
        print(name, results[name], flush=True)
        sheet.extend(np.hstack(row) for row in drawn[:: arguments.seeds])
    arguments.out.mkdir(parents=True, exist_ok=True)
    width = max(row.shape[1] for row in sheet)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=1.0) for row in sheet]
    write_png(arguments.out / "sheet.png", (np.vstack(padded) * 255).round().astype(np.uint8))
    settings = {"seeds": arguments.seeds, "steps": arguments.steps, "guidance": arguments.guidance}
    print(write_results("control", {"prompts": PROMPTS, **settings, **results}, description))


Pictures = Callable[[list[Map]], list[list[np.ndarray]]]
Measured = tuple[dict, list[list[np.ndarray]]]


def lips(maps: Maps, pictures: Pictures) -> Measured:
    return _opening(maps.draw({"jawOpen": 0.8}), maps.draw({}), (INNER_LIPS,), pictures)


def lids(maps: Maps, pictures: Pictures) -> Measured:
    return _opening(maps.draw({}), maps.draw({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}), EYES, pictures)


def _opening(opened: Map, closed: Map, rings: tuple[tuple[int, ...], ...], pictures: Pictures) -> Measured:
    """Share of the pairs whose opened picture shows, within the rings, what is less like skin than the closed one."""
    drawn = pictures([opened, closed])
    size = drawn[0][0].shape[0]
    within = _inside(opened, rings, size)
    beside = _cheeks(opened, size)
    right, unlike = 0, []
    for pair in drawn:
        lab = [srgb_to_lab(picture.reshape(-1, 3)).reshape(picture.shape) for picture in pair]
        complexion = [np.median(one[beside], 0) for one in lab]
        away = [np.linalg.norm(one[within] - skin, axis=1).mean() for one, skin in zip(lab, complexion, strict=True)]
        changed = np.linalg.norm(lab[0] - lab[1], axis=2)
        right += bool(away[0] > away[1] and changed[within].mean() > changed[beside].mean())
        unlike.append(away)
    means = np.mean(unlike, 0)
    return {
        "obeyed": round(right / len(drawn), 3),
        "samples": len(drawn),
        "from_skin_opened": round(float(means[0]), 1),  # CIE76
        "from_skin_closed": round(float(means[1]), 1),
    }, drawn


def gaze(maps: Maps, pictures: Pictures) -> Measured:
    """The eyes' darkest part against the iris on the map; both as shares of the eye's half width."""
    chosen = [maps.draw(_looking(share)) for share in GAZES]
    drawn = pictures(chosen)
    size = drawn[0][0].shape[0]
    asked, shown = [], []
    for row in drawn:
        for one, picture in zip(chosen, row, strict=True):
            places, scale = [], size / len(one.picture)
            for ring, iris in zip(EYES, IRISES, strict=True):
                corners = np.array([one.pixels[ring[0]], one.pixels[ring[8]]]) * scale
                middle, half = corners[:, 0].mean(), abs(np.ptp(corners[:, 0])) / 2
                light = srgb_to_lab(picture.reshape(-1, 3))[:, 0].reshape(size, size)
                inside = _inside(one, (ring,), size)
                dark = np.where(inside, light[inside].max() - light, 0.0) ** 2
                seen = (dark.sum(0) * (np.arange(size) + 0.5)).sum() / max(dark.sum(), 1e-9)
                places.append(((one.pixels[iris][0] * scale - middle) / half, (seen - middle) / half))
            asked.append(np.mean([place[0] for place in places]))
            shown.append(np.mean([place[1] for place in places]))
    return {"correlation": _correlation(asked, shown), "samples": len(asked)}, drawn


def _looking(share: float) -> dict[str, float]:
    left = {"eyeLookOutLeft": share, "eyeLookInRight": share}
    right = {"eyeLookInLeft": -share, "eyeLookOutRight": -share}
    return left if share >= 0 else right


def turn(maps: Maps, pictures: Pictures) -> Measured:
    """Where the skin is within the head's outline, against the sine of the turn."""
    chosen = [maps.draw({}, azimuth) for azimuth in TURNS]
    drawn = pictures(chosen)
    asked, shown = [], []
    for row in drawn:
        for azimuth, one, picture in zip(TURNS, chosen, row, strict=True):
            lab = srgb_to_lab(picture.reshape(-1, 3)).reshape(picture.shape)
            head = np.linalg.norm(lab - np.median(lab[:4].reshape(-1, 3), 0), axis=2) > LIKE
            complexion = np.median(lab[_cheeks(one, len(picture))], 0)
            skin = head & (np.linalg.norm(lab - complexion, axis=2) < LIKE)
            columns = np.arange(len(picture)) + 0.5
            places = [(mask.sum(0) * columns).sum() / max(mask.sum(), 1) for mask in (head, skin)]
            asked.append(np.sin(np.radians(-azimuth)))
            shown.append(places[1] - places[0])
    return {"correlation": _correlation(asked, shown), "samples": len(asked)}, drawn


def _inside(one: Map, rings: tuple[tuple[int, ...], ...], size: int) -> np.ndarray:  # [S, S] bool
    mask = np.zeros((size, size), np.uint8)
    scale = size / len(one.picture)
    for ring in rings:
        corners = np.array([one.pixels[index] for index in ring]) * scale
        cv2.fillPoly(mask, [np.floor(corners).astype(np.int32)], 1)
    return mask > 0


def _cheeks(one: Map, size: int) -> np.ndarray:  # [S, S] bool
    """Discs half way between the eyes' lower lids and the corners of the mouth."""
    mask = np.zeros((size, size), np.uint8)
    scale = size / len(one.picture)
    for ring, corner in zip(EYES, LIP_CORNERS, strict=True):
        x, y = 0.5 * (one.pixels[ring[4]] + one.pixels[corner]) * scale
        cv2.circle(mask, (int(x), int(y)), max(1, size // 42), 1, -1)
    return mask > 0


def _correlation(asked: list[float], shown: list[float]) -> float:
    return round(float(np.corrcoef(asked, shown)[0, 1]), 3)


if __name__ == "__main__":
    main()
