"""The built-in prior: a small diffusion model, and the generator of synthetic heads that it was trained on.

Importing this package loads nothing: torch, diffusers and the head come in with the modules that need them.
"""

from pathlib import Path


def model_folder() -> Path:
    """The diffusers folder of the trained model, part of the package."""
    return Path(__file__).resolve().parent / "model"
