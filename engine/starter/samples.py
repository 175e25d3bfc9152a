"""Pictures that the prior draws by itself: ``python -m headstudio.starter.samples --out SHEET.png``.

One row for each of 20 prompts that a person might write, seen from the front, the side and the back, under the landmark
maps of the default head.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..camera import Camera, orbit
from ..condition.picture import condition_image
from ..guidance.denoise import denoise
from ..guidance.prior import Prior
from ..guidance.prompts import VIEW_SUFFIXES, view_index
from ..heads.default_head import default_head
from ..heads.head import Head
from . import model_folder

EVALUATION_PROMPTS = (
    "a smiling old man with a white beard and a red hat",
    "a young woman with long blonde hair and blue eyes",
    "a man with dark skin and an afro",
    "a bald man with glasses and a black moustache",
    "a woman with short pink hair and red lips",
    "a green orc with a black mohawk",
    "a clown with orange hair",
    "a zombie",
    "an alien with big black eyes",
    "a silver robot",
    "a king with a gold crown and a brown beard",
    "a wizard with a long white beard",
    "a pirate with an eyepatch",
    "a red devil with horns",
    "an elf with pointed ears",
    "a woman with purple skin and white hair",
    "a man with a blue cap and sunglasses",
    "a knight in a helmet",
    "a skull",
    "Santa Claus",
)


def neutral_views(azimuths: list[float], size: int, all_round: bool) -> tuple[Tensor, Tensor]:
    """Landmark maps [V, size, size, 3] of the default head at rest, and how far each may be trusted [V]."""
    arrays = default_head()
    head = Head(arrays)
    joints = torch.zeros(1, head.joint_count, 3)
    vertices = head(torch.zeros(1, head.expression_size), joints).expand(len(azimuths), -1, -1)
    cameras: Camera = orbit(azimuths, 5.0, 2.4 * arrays.unit, 48.0, size, torch.as_tensor(arrays.centre).float())
    return condition_image(arrays, vertices, cameras, size, all_round)


@torch.no_grad()
def sample(
    prior: Prior,
    prompts: list[str],
    conditions: Tensor,  # [B, S, S, 3] in 0..1
    strengths: Tensor,  # [B]
    steps: int = 30,
    guidance: float = 5.0,
    seed: int = 0,
    negative: str = "",
) -> Tensor:  # [B, H, H, 3] in 0..1
    """Pictures out of nothing but noise, each of its own, which depends on its place in the batch."""
    count, size = len(prompts), prior.latent_size
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, prior.latent_channels, size, size, generator=generator)
    text, opposite = prior.encode_text(prompts), prior.encode_text([negative])[0]
    latents = denoise(prior, noise, prior.timesteps - 1, steps, text, opposite, conditions, strengths, guidance)
    return prior.decode(latents)


def sample_sheet(prior: Prior, prompts: tuple[str, ...], azimuths: list[float], seed: int, **options) -> np.ndarray:
    """RGB uint8: a tile per prompt, its views side by side, four prompts in a row."""
    conditions, strengths = neutral_views(azimuths, prior.condition_size, prior.all_round)
    rows = view_index(torch.tensor(azimuths)).tolist()
    tiles = []
    for number, prompt in enumerate(prompts):
        texts = [prompt + VIEW_SUFFIXES[row] for row in rows]
        pictures = sample(prior, texts, conditions, strengths, seed=seed + number, **options)
        tiles.append(np.concatenate([(picture.numpy() * 255).round().astype(np.uint8) for picture in pictures], 1))
    while len(tiles) % 4:
        tiles.append(np.full_like(tiles[0], 255))
    return np.concatenate([np.concatenate(tiles[row : row + 4], 1) for row in range(0, len(tiles), 4)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=model_folder(), help="diffusers folder; default the built-in prior"
    )
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    parser.add_argument("--prompt", action="append", help="instead of the 20 evaluation prompts; may be repeated")
    parser.add_argument("--azimuths", type=float, nargs="+", default=[0.0, 25.0, -90.0, 180.0], help="degrees")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    prior = Prior.load(arguments.model, device="cpu")
    prompts = tuple(arguments.prompt or EVALUATION_PROMPTS)
    sheet = sample_sheet(
        prior, prompts, arguments.azimuths, arguments.seed, steps=arguments.steps, guidance=arguments.guidance
    )
    cv2.imwrite(str(arguments.out), sheet[..., ::-1])
    print(f"{len(prompts)} prompts, {len(arguments.azimuths)} views each: {arguments.out}")


if __name__ == "__main__":
    main()
