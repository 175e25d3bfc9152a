"""Files appear whole or not at all (standard library only: both halves use it)."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], durable: bool = True) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    It is written beside its place, flushed to the disk and moved with ``os.replace``, so a reader (or a crash at any
    moment) finds the old file or the new one. Without ``durable`` it does not wait for the disk: after a power cut,
    and only then, the file may be damaged. Raises ``UserError`` if the folder is missing, the disk is full or
    writing is not allowed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "x+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot write {path}: {reason}. Choose another folder or free some space.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # already gone when all went well
