"""Figures measured on a finished avatar, from its file alone.

The JSON of ``headstudio evaluate`` is a list with one object per avatar:

- ``avatar``: the file
- ``prompt``, ``seed``, ``steps``: from the file's provenance
- ``splats``: their number; ``faint_splats``: those below an opacity of 0.05; of the others ``far_from_head`` counts
  those whose centre lies farther than 3 cm from the head's surface, at rest, and ``floaters`` those of them that are
  also farther than that from hair, hat and whatever else is attached to the head (``floaters.py``);
  ``floater_share``: floaters per splat that is not faint
- ``lids`` and ``lips``: do they close, how far do they open, and what shows then (``closing.py``); null for a head
  without eyeballs, or without a mouth
- ``coverage``: is the head opaque from all around (``coverage.py``)
- ``attributes``: which of hair, beard, hat and so on there are, and whether the prompt says so (``presence.py``)
- ``second_face``: does the back of the head look like a face (``second_face.py``)
- ``steady``: does it stay where its head stays, over a motion (``steady.py``); null for a head that cannot play it
- ``colours``: do they agree with the prompt (``agreement.py``); null where the prompt says no colour
- ``seconds``: what training took, where the file lies in its job's folder; null elsewhere. The file itself holds no
  time, so that the same request gives the same file
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..avatar.file import Avatar
from ..errors import UserError
from ..export.pictures import Stage
from ..job import Event, Job
from .agreement import agreement
from .closing import lids, lips
from .coverage import coverage
from .floaters import count_far, count_floaters, splat_axes
from .presence import attributes
from .second_face import second_face
from .steady import steady

FAINT = 0.05  # opacity


def evaluate(avatar: Avatar, device: torch.device | str = "cpu") -> dict:
    """Every figure but ``avatar`` and ``seconds``, as JSON values."""
    stage = Stage(avatar, device)
    gaussians = stage.pose()
    solid = (gaussians.opacities >= FAINT).cpu().numpy()
    means = gaussians.means.cpu().numpy()[solid]
    about = avatar.provenance
    shape = avatar.head.vertices, avatar.head.triangles
    axes = splat_axes(gaussians.quats.cpu().numpy()[solid], gaussians.scales.cpu().numpy()[solid])
    floaters = count_floaters(means, axes, *shape)
    return {
        "prompt": about.get("prompt"),
        "seed": about.get("seed"),
        "steps": about.get("step"),
        "splats": len(gaussians),
        "faint_splats": int((~solid).sum()),
        "far_from_head": count_far(means, *shape),
        "floaters": floaters,
        "floater_share": round(floaters / max(len(means), 1), 6),
        "lids": lids(stage),
        "lips": lips(stage),
        "coverage": coverage(stage),
        "attributes": attributes(stage, str(about.get("prompt", ""))),
        "second_face": second_face(stage),
        "steady": steady(stage),
        "colours": agreement(stage, str(about.get("prompt", ""))),
    }


def training_seconds(folder: Path) -> float | None:
    """Seconds of training of the job in this folder, over all its sessions; None if there is none."""
    try:
        events = Job.open(folder).events()
    except UserError:
        return None
    return sessions_seconds(events)


def sessions_seconds(events: list[Event]) -> float:
    """The sum of what the sessions took, from each ``started`` to the last event before the next one."""
    total, start, last = 0.0, None, 0.0
    for event in events:
        if event.kind == "started":
            total += last - start if start is not None else 0.0
            start = event.time
        last = event.time
    return round(total + (last - start if start is not None else 0.0), 3)
