"""Does everything fit together? A fresh avatar is fitted to 48 pictures of a known one and measured on others.

Training: 8 views x 6 poses. Held-out views: 8 cameras between those, the same poses. Held-out expressions: 4 other
poses from the held-out cameras. For scale, ``still`` is the score on the held-out expressions of the fitted avatar when
it is left at rest: what an avatar that does not follow its head would get.

    python benchmarks/photometric_fit.py [--size 256] [--steps 2000] [--picture fit.png] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from headstudio.avatar.rigged import RiggedAvatar
from headstudio.heads.default_head import default_head
from headstudio.rasterise.rasterise import rasterise
from headstudio.train.photometric import PhotometricSettings, fit
from headstudio.train.photometric_metrics import psnr
from torch import Tensor

from benchmarks.common import machine, write_results
from benchmarks.photometric_truth import Pictures, picture, random_poses, ring, truth


@torch.no_grad()
def draw(avatar: RiggedAvatar, pictures: Pictures, at_rest: bool = False) -> Tensor:  # [V, H, W, 3]
    """The avatar from the same cameras with the same (or no) expressions and joints."""
    factor = 0.0 if at_rest else 1.0
    colours = []
    for view in range(len(pictures.images)):
        gaussians = avatar.pose(factor * pictures.expressions[view], factor * pictures.joints[view])
        colours.append(rasterise(gaussians, pictures.cameras[view]).colour.clamp(0, 1))
    return torch.stack(colours)


def score(drawn: Tensor, pictures: Pictures) -> dict[str, float]:
    """PSNR in dB over whole pictures, and over the pixels that show the head."""
    whole = psnr(drawn, pictures.images)
    head = psnr(drawn, pictures.images, pictures.alpha > 0.5)
    figures = {"mean": whole.mean(), "worst": whole.min(), "head_mean": head.mean(), "head_worst": head.min()}
    return {name: round(value.item(), 2) for name, value in figures.items()}


def run(
    size: int, settings: PhotometricSettings, truth_points: int, seed: int = 0, report=None
) -> tuple[dict, dict[str, tuple[Tensor, Tensor]]]:
    """Figures, and for each set of pictures the truth and what was drawn."""
    arrays = default_head()
    known = truth(arrays, truth_points)
    poses = random_poses(known.head, 6, seed=1)
    others = tuple(values[1:] for values in random_poses(known.head, 5, seed=2))  # without the rest pose
    between = ring(arrays, 8, size, phase=0.5)
    training = picture(known, ring(arrays, 8, size, phase=0.0), *poses)
    sets = {
        "training": training,
        "views": picture(known, between, *poses),
        "expressions": picture(known, between, *others),
    }

    started = time.perf_counter()
    gaussians = fit(
        known.head,
        training.images,
        training.cameras,
        training.expressions,
        training.joints,
        settings,
        torch.Generator().manual_seed(seed),
        report=report,
    )
    seconds = time.perf_counter() - started
    fitted = RiggedAvatar(known.head, gaussians)
    drawn = {name: draw(fitted, pictures) for name, pictures in sets.items()}
    figures = {name: score(drawn[name], pictures) for name, pictures in sets.items()}
    figures["still"] = score(draw(fitted, sets["expressions"], at_rest=True), sets["expressions"])
    figures |= {"pictures": len(training.images), "splats": len(gaussians), "truth_splats": len(known.gaussians)}
    figures |= {"seconds": round(seconds, 1), "seconds_per_step": round(seconds / settings.steps, 4)}
    return figures, {name: (pictures.images, drawn[name]) for name, pictures in sets.items()}


def sheet(pairs: dict[str, tuple[Tensor, Tensor]], path: Path) -> None:
    """Truth above fit, six pictures of each held-out set."""
    import cv2

    rows = []
    for name in ("views", "expressions"):
        for images in pairs[name]:
            rows.append(torch.cat(list(images[torch.linspace(2, len(images) - 3, 6).long()]), 1))
    cv2.imwrite(str(path), (torch.cat(rows).flip(-1) * 255).round().byte().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--truth-points", type=int, default=60_000, help="splats of the avatar to be found")
    parser.add_argument("--picture", type=Path, help="PNG of truth above fit")
    arguments = parser.parse_args()
    description = machine()
    settings = replace(PhotometricSettings(), steps=arguments.steps)

    def report(step: int, loss: float, splats: int) -> None:
        if step % 100 == 0:
            print(f"step {step} loss {loss:.5f} splats {splats}", flush=True)

    figures, pairs = run(arguments.size, settings, arguments.truth_points, report=report)
    result = {"size": arguments.size, "psnr_db": figures, "settings": asdict(settings)}
    print(write_results("photometric_fit", result, description))
    print(json.dumps(figures, indent=2))
    if arguments.picture:
        sheet(pairs, arguments.picture)


if __name__ == "__main__":
    main()
