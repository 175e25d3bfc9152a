"""Priors that have a short name: what they are, where they come from and what their licence allows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubFolder:
    """A folder of a Hugging Face repository at one commit."""

    repo: str
    revision: str  # full commit hash: what is loaded tomorrow is what was loaded today
    subfolder: str = ""
    licence: str = ""
    gigabytes: float = 0.0  # about, of the files that are fetched


@dataclass(frozen=True)
class KnownPrior:
    """A diffusion model and the ControlNet that goes with it."""

    summary: str
    model: HubFolder
    controlnet: HubFolder


# Commits as public projects quote them that load these models. Both repositories hold other models at their root, which
# are not fetched.
KNOWN_PRIORS: dict[str, KnownPrior] = {
    "realistic-vision": KnownPrior(
        summary="photographic quality at 512 px (Stable Diffusion 1.5 class); wants a GPU with 8 GB or more",
        model=HubFolder(
            repo="SG161222/Realistic_Vision_V5.1_noVAE",
            revision="1e9f017a7b1eaefb63a1900ea6c5953d2739fd21",
            licence="CreativeML OpenRAIL-M",
            gigabytes=4.3,
        ),
        controlnet=HubFolder(
            repo="CrucibleAI/ControlNetMediaPipeFace",
            revision="f6ed75cc495674bea8bf7409ef3d0e5bfb7d8c90",
            subfolder="diffusion_sd15",
            licence="CreativeML OpenRAIL-M",
            gigabytes=2.2,
        ),
    ),
}
