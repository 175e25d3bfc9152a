"""Gaussians to pictures: ``rasterise(gaussians, camera) -> Render``."""

from .rasterise import Render, rasterise

__all__ = ["Render", "rasterise"]
