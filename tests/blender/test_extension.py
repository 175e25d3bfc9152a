import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import this_blender

MODULE = "bl_ext.user_default.headstudio"


def test_zip_holds_both_halves_and_no_tests(extension_zip):
    names = zipfile.ZipFile(extension_zip).namelist()
    assert "blender_manifest.toml" in names
    assert "blender_addon/rig.py" in names
    assert "engine/avatar/file.py" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "tools")) or "__pycache__" in name]


def test_enabling_imports_no_torch(extension_zip, tmp_path):
    """In a process of its own, whose modules nobody else has filled."""
    script = f"""
import os, sys
import bpy
bpy.ops.extensions.package_install_files(repo="user_default", filepath={str(extension_zip)!r}, enable_on_install=True)
assert {MODULE!r} in sys.modules
heavy = [name for name in ("torch", "diffusers", "numba", "scipy", "cv2") if name in sys.modules]
print("HEAVY", heavy)
sys.stdout.flush()
os._exit(0)
"""
    path = os.environ["PATH"] if this_blender.EXECUTABLE else ""  # Debian's Blender finds its Python there
    done = subprocess.run(
        this_blender.command(script),
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": path, "HOME": str(tmp_path), "BLENDER_USER_RESOURCES": str(tmp_path)},
    )
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


def ours(function) -> bool:
    return MODULE in (getattr(function, "__module__", None) or "")


def traces(bpy) -> dict[str, list[str]]:
    """What the extension has put anywhere in Blender or in this process."""
    handlers = bpy.app.handlers
    lists = [name for name in dir(handlers) if isinstance(getattr(handlers, name), list)]
    holders = [getattr(bpy.types, name) for name in dir(bpy.types)]
    drawn = [holder for holder in holders if hasattr(getattr(holder, "draw", None), "_draw_funcs")]
    sets = bpy.context.scene.keying_sets_all
    return {
        "handlers": [f"{name} {each.__name__}" for name in lists for each in getattr(handlers, name) if ours(each)],
        "menus": [f"{each.__name__} {f.__name__}" for each in drawn for f in each.draw._draw_funcs if ours(f)],
        "classes": [name for name in dir(bpy.types) if "headstudio" in name.lower()],
        "properties": [
            f"{holder.__name__}.{name}"
            for holder in holders
            if isinstance(holder, type)
            for name in holder.__dict__
            if name.startswith("headstudio")
        ],
        "keying sets": [each.bl_idname for each in sets if "HeadStudio" in each.bl_idname],
        # tqdm's monitor comes with the engine, which other tests use in this process
        "threads": [
            each.name
            for each in threading.enumerate()
            if each is not threading.main_thread() and type(each).__module__.split(".")[0] != "tqdm"
        ],
        "processes": [pid for pid in children() if pid not in AT_START],
    }


def children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


AT_START = children()


def test_disabling_and_enabling_leaves_nothing_behind(bpy, addon, scene):
    scene.keying_sets_all.active = next(
        each for each in scene.keying_sets_all if each.bl_idname == "HeadStudioExpression"
    )
    enabled = traces(bpy)
    for kind in ("handlers", "menus", "classes", "properties", "keying sets"):
        assert enabled[kind], kind
    timers = [getattr(addon, name) for name in ("jobs", "viewport", "cpu_render")]
    timers = [f for module in timers for f in vars(module).values() if callable(f) and ours(f)]
    try:
        for _ in range(10):
            viewport = sys.modules[f"{MODULE}.blender_addon.viewport"]
            bpy.ops.preferences.addon_disable(module=MODULE)
            left = traces(bpy)
            assert not {kind: found for kind, found in left.items() if found}
            assert not [function for function in timers if bpy.app.timers.is_registered(function)]
            with pytest.raises(ValueError, match="removed"):  # Blender has no list of its draw handlers
                bpy.types.SpaceView3D.draw_handler_remove(viewport._state.handle, "WINDOW")
            bpy.ops.preferences.addon_enable(module=MODULE)
            assert traces(bpy) == enabled
    finally:
        bpy.ops.preferences.addon_enable(module=MODULE)  # later tests need it, whatever was found here


@pytest.mark.parametrize("prompt", ["", " ", "x" * 10_000])
def test_generate_refuses_a_senseless_prompt_with_a_sentence(scene, bpy, prompt):
    scene.headstudio.prompt = prompt
    with pytest.raises(RuntimeError, match=r"prompt"):
        bpy.ops.headstudio.generate()
