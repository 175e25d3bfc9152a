"""Do the avatar's colours agree with its prompt? Measured on renders, part by part, in CIELAB."""

from __future__ import annotations

import numpy as np

from ..export.pictures import Stage
from .caption import TABLES, colour_claims, mentioned_parts
from .colours import srgb_to_lab
from .part_pixels import part_pixels

LEAST = 20  # pixels of a part, over all its views, below which nothing is said about its colour


def agreement(stage: Stage, prompt: str) -> dict | None:
    """Every colour that the prompt gives to a part, against what renders show there.

    ``claims``: a list of ``part``, ``said`` (the colour's name), ``seen`` (sRGB 0..255, the median of each channel over
    the part's visible pixels; null where too little of it shows), ``distance`` (CIE76, 2.3 is just noticeable),
    ``nearest`` (the name in the part's table that comes closest) and ``agrees`` (whether that is the one said).
    ``agreeing``: how many agree; ``of``: how many were said; ``mean_distance``. None if the prompt says no colour, or
    the head's regions are not those of the default head.
    """
    claims = colour_claims(prompt)
    if not claims or "scalp" not in stage.arrays.region_names:
        return None
    headgear = mentioned_parts(prompt).get("headgear", "")
    results = []
    for claim in claims:
        pixels = part_pixels(stage, claim.part, headgear)
        result: dict = {"part": claim.part, "said": claim.colour, "seen": None, "agrees": False}
        if len(pixels) >= LEAST:
            seen = np.median(pixels, 0)
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
