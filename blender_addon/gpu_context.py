"""Whether a Blender without a window can have a GPU context, and what is missing if it cannot.

Blender ends its process where libEGL is missing or finds no driver, so this has to be known before it is asked for a
context. With a window there is one already.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import bpy

_SURFACELESS = 0x31DD  # EGL_PLATFORM_SURFACELESS_MESA: what Blender falls back to without a display


@cache
def why_no_gpu() -> str:
    """What is missing and how to get it, in one sentence; empty where a render can have a GPU context."""
    system = bpy.context.preferences.system
    if not bpy.app.background or sys.platform != "linux" or getattr(system, "gpu_backend", "OPENGL") != "OPENGL":
        return ""
    for library, package in (("libEGL.so.1", "libegl1"), ("libGL.so.1", "libgl1")):
        try:
            ctypes.CDLL(library)
        except OSError:
            return f"the library {library} is missing (on Debian and Ubuntu: apt install {package} libgl1-mesa-dri)"
    if not _egl_starts(ctypes.CDLL("libEGL.so.1")):
        return (
            "libEGL finds no graphics driver: install the graphics card's, or Mesa's software renderer "
            "(on Debian and Ubuntu: apt install libegl-mesa0 libgl1-mesa-dri)"
        )
    return ""


def _egl_starts(egl: ctypes.CDLL) -> bool:
    """Whether EGL initialises on the default display or, as on a render farm, without any."""
    egl.eglGetDisplay.restype = egl.eglGetPlatformDisplay.restype = ctypes.c_void_p
    egl.eglGetDisplay.argtypes = [ctypes.c_void_p]
    egl.eglGetPlatformDisplay.argtypes = [ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
    egl.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    for display in (egl.eglGetDisplay(None), egl.eglGetPlatformDisplay(_SURFACELESS, None, None)):
        if display and egl.eglInitialize(display, None, None):
            return True
    return False
