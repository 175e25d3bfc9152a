"""Colours for splats that no picture has shown yet: those of what is next to them.

The sides of a head that are painted apart come out in colours of their own wherever the prompt leaves them open. So the
first round paints the front alone, and what it cannot see goes on as the front left off, before it is painted in turn.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..avatar.sh_rotation import SH_C0
from ..rasterise import rasterise
from .scenes import Scene
from .state import State

_SEEN = 1.0  # pixels that a splat must make up, in all pictures together
_NEIGHBOURS = 8


@torch.no_grad()
def colour_unseen(state: State, scenes: list[Scene]) -> None:
    """Gives the splats that the scenes' views do not show the mean colour of the nearest that they do show, in place.

    Eyes and mouth keep their own. Twice does no more than once.
    """
    gaussians, head = state.gaussians, state.head
    seen = shown_pixels(state, scenes) >= _SEEN
    unseen = ~seen & ~(state.natural | state.eyes)[gaussians.triangle]
    if not seen.any() or not unseen.any():
        return
    vertices = head.rest_vertices(state.identity.detach()[None])[0]
    places = gaussians.pose(vertices, head.triangles).means.cpu().numpy()
    giving = seen & ~state.held[gaussians.triangle]
    tree = cKDTree(places[giving.cpu().numpy()])
    _, rows = tree.query(places[unseen.cpu().numpy()], k=min(_NEIGHBOURS, tree.n))
    rows = torch.from_numpy(rows.reshape(int(unseen.sum()), -1)).to(unseen.device)
    gaussians.sh[unseen] = gaussians.sh[giving][rows].mean(1)


def shown_pixels(state: State, scenes: list[Scene]) -> Tensor:  # [K]
    """How many pixels each splat makes up, in all views of the scenes together."""
    total = torch.zeros(len(state.gaussians), device=state.head.device)
    for scene in scenes:
        vertices = scene.vertices(state.head, state.identity.detach())
        with torch.no_grad():
            posed = state.gaussians.pose(vertices, state.head.triangles)
        with torch.enable_grad():
            # A pixel gains with a splat's colour what the splat makes up of it
            grey = torch.zeros_like(posed.sh[:, :1]).requires_grad_()
            for _, part in scene.parts(state.views_at_once):
                rasterise(replace(posed, sh=grey), part.camera).colour.sum().backward()
        total += grey.grad[:, 0, 0] / SH_C0
    return total
