"""The head that a user names: the default head, or a FLAME file."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .arrays import HeadArrays


def load_head(source: str | Path = "default") -> HeadArrays:
    """``"default"``, or the path of a FLAME file (``.pkl`` or ``.npz``).

    Raises ``UserError`` if the source is neither, or if the file is damaged.
    """
    if str(source) == "default":
        from .default_head import default_head

        return default_head()
    if not Path(source).is_file():
        raise UserError(f'There is no head at {source}. Give "default" or the path of your FLAME file (.pkl or .npz).')
    from .flame import load_flame

    return load_flame(Path(source))
