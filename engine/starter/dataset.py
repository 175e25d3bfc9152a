"""Makes training pictures: ``python -m headstudio.starter.dataset --out FOLDER --shards 40``.

Shard 0 is never trained on. A shard depends on the seed and its number alone: several processes may each make some.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from .character import sample_character
from .scene import Studio
from .shards import Shard, shard_path, write_shard

CHARACTERS = 64
VIEWS = 4  # pictures of each character: building one costs twice as much as taking a picture
CLOSE_UPS = 1  # how many of them show the face alone


def make_shard(
    studio: Studio,
    seed: int,
    number: int,
    characters: int = CHARACTERS,
    views: int = VIEWS,
    close_ups: int = CLOSE_UPS,
) -> Shard:
    """``characters`` times ``views`` pictures, ``close_ups`` of each character's from close by; the same for the same
    seed and number."""
    rng = np.random.default_rng([seed, number])
    pictures = []
    for _ in range(characters):
        model = studio.build(sample_character(rng))
        pictures.extend(studio.photograph(model, rng, close_up=view < close_ups) for view in range(views))
    return Shard(
        pictures=np.stack([picture.rgba for picture in pictures]),
        conditions=np.stack([picture.condition for picture in pictures]),
        characters=np.array([picture.character.to_json() for picture in pictures]),
        moods=np.array([picture.mood for picture in pictures]),
        views=np.array([picture.view for picture in pictures]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--close-ups", type=int, default=CLOSE_UPS, help=f"of {VIEWS} views")
    parser.add_argument("--step", type=int, default=1, help="make every STEP-th shard only, for several processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    studio = Studio()
    for number in range(arguments.first, arguments.first + arguments.shards * arguments.step, arguments.step):
        if shard_path(arguments.out, number).exists():
            continue
        start = time.monotonic()
        shard = make_shard(studio, arguments.seed, number, close_ups=arguments.close_ups)
        path = write_shard(arguments.out, number, shard)
        print(f"{path}: {CHARACTERS * VIEWS} pictures in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
