"""Do the avatar's colours agree with its prompt? Measured on renders, part by part, in CIELAB."""

from __future__ import annotations

import numpy as np
import torch

from ..export.pictures import Stage
from ..heads.arrays import HeadArrays
from ..rasterise import rasterise
from .caption import TABLES, colour_claims, mentioned_parts
from .colours import srgb_to_lab
from .visible import share_picture

SIZE = 256  # pixels
LEAST = 20.0  # pixels of a part, over all its views, below which nothing is said about its colour
# Azimuths, degrees, from which each part is looked at
_AZIMUTHS = {
    "headgear": (0, 90, 180, -90),
    "hair": (90, 135, 180, -135, -90),
    "beard": (0, 40, -40),
    "moustache": (0,),
    "skin": (0, 30, -30),
    "eyes": (0,),
    "lips": (0,),
}
# Regions of the default head on which each part lies; the scalp is divided between hair and headgear
_REGIONS = {
    "beard": ("chin_beard",),
    "moustache": ("moustache",),
    "skin": ("face", "nose"),
    "eyes": ("iris_left", "iris_right"),
    "lips": ("lips",),
}


def agreement(stage: Stage, prompt: str) -> dict | None:
    """Every colour that the prompt gives to a part, against what renders show there.

    ``claims``: a list of ``part``, ``said`` (the colour's name), ``seen`` (sRGB 0..255, the mean over the part's
    visible pixels; null where too little of it shows), ``distance`` (CIE76, 2.3 is just noticeable), ``nearest`` (the
    name in the part's table that comes closest) and ``agrees`` (whether that is the one said). ``agreeing``: how many
    agree; ``of``: how many were said; ``mean_distance``. None if the prompt says no colour, or the head's regions are
    not those of the default head.
    """
    claims, head = colour_claims(prompt), stage.arrays
    if not claims or "scalp" not in head.region_names:
        return None
    headgear = "headgear" in mentioned_parts(prompt)
    results = []
    for claim in claims:
        seen = part_colour(stage, part_triangles(head, claim.part, headgear), _AZIMUTHS[claim.part])
        result: dict = {"part": claim.part, "said": claim.colour, "seen": None, "agrees": False}
        if seen is not None:
            table = {name: srgb_to_lab(np.array(colour) / 255) for name, colour in TABLES[claim.part].items()}
            distances = {name: float(np.linalg.norm(srgb_to_lab(seen) - lab)) for name, lab in table.items()}
            nearest = min(distances, key=distances.get)
            result |= {
                "seen": np.rint(seen * 255).astype(int).tolist(),
                "distance": round(distances[claim.colour], 1),
                "nearest": nearest,
                "agrees": nearest == claim.colour,
            }
        results.append(result)
    measured = [result["distance"] for result in results if "distance" in result]
    return {
        "claims": results,
        "agreeing": sum(result["agrees"] for result in results),
        "of": len(results),
        "mean_distance": round(float(np.mean(measured)), 1) if measured else None,
    }


@torch.no_grad()
def part_colour(
    stage: Stage,
    triangles: np.ndarray,  # [M] bool
    azimuths: tuple[float, ...],  # degrees
) -> np.ndarray | None:  # [3] sRGB in 0..1
    """Mean colour of the pixels that the splats on these triangles make up, at rest, over some views; each pixel counts
    by their share of it. None where they are nearly hidden."""
    gaussians = stage.pose()
    chosen = torch.as_tensor(triangles, device=gaussians.means.device)[stage.model.gaussians.triangle]
    total, weight = np.zeros(3), 0.0
    for azimuth in azimuths:
        camera = stage.camera(azimuth, SIZE)
        share = share_picture(gaussians, chosen, camera).double()
        # A pixel of which the part is a small share shows another one's colour
        share = torch.where(share > 0.5, share, 0.0)
        colour = rasterise(gaussians, camera).colour.double().clamp(0, 1)
        total += (share[..., None] * colour).sum((0, 1)).cpu().numpy()
        weight += share.sum().item()
    return total / weight if weight >= LEAST else None


def part_triangles(head: HeadArrays, part: str, headgear: bool) -> np.ndarray:  # [M] bool
    """Triangles of the default head that carry a part. A hat has none of its own: it is made of splats that are bound
    to the scalp above the forehead's hairline; so is hair, where no ``headgear`` is worn."""
    if part in _REGIONS:
        return _in_regions(head, _REGIONS[part])
    scalp = _in_regions(head, ("scalp",))
    if part == "hair" and not headgear:
        return scalp
    centre = head.vertices[head.triangles].mean(1)  # [M, 3]
    middle = scalp & (np.abs(centre[:, 0]) < 0.015) & (centre[:, 2] > head.centre[2])
    above = centre[:, 1] > centre[middle, 1].min()
    return scalp & (above if part == "headgear" else ~above)


def _in_regions(head: HeadArrays, names: tuple[str, ...]) -> np.ndarray:  # [M] bool
    wanted = [head.region_names.index(name) for name in names if name in head.region_names]
    return np.isin(head.region, wanted)
