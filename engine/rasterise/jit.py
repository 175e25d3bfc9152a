"""``kernel``: numba compilation as every CPU kernel here wants it."""

from __future__ import annotations

from collections.abc import Callable

import numba


def kernel(function: Callable) -> Callable:
    """Compile without the interpreter's lock and without fast-math, and keep the machine code on disk.

    numba keeps it beside the source file, or in the user's cache folder where that is read-only, or in
    ``NUMBA_CACHE_DIR``. It recompiles when that one file changes: a kernel therefore calls only functions of its own
    file, and gets constants of other files as arguments.
    """
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder that it may write to
        return numba.njit(nogil=True, error_model="numpy")(function)
