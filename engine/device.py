"""Which device to compute on."""

from __future__ import annotations

import torch

from .errors import UserError


def choose_device(name: str) -> str:
    """The device of that name; for "auto" the GPU if there is one. Raises ``UserError`` for one that is not here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a build of torch without it asserts
        raise UserError(f"The device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return name
