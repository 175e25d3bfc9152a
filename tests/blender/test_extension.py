import subprocess
import sys
import zipfile

import pytest

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
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "", "HOME": str(tmp_path), "BLENDER_USER_RESOURCES": str(tmp_path)},
    )
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


def test_disabling_and_enabling_leaves_nothing_behind(bpy, addon):
    def traces():
        handlers = bpy.app.handlers
        ours = [
            function
            for group in (handlers.depsgraph_update_post, handlers.frame_change_post, handlers.load_pre)
            for function in group
            if MODULE in function.__module__
        ]
        menu = bpy.types.TOPBAR_MT_file_import._dyn_ui_initialize()
        entries = [function for function in menu if MODULE in function.__module__]
        classes = [name for name in dir(bpy.types) if "headstudio" in name.lower()]
        return len(ours), len(entries), len(classes), hasattr(bpy.types.Scene, "headstudio")

    enabled = traces()
    assert enabled[0] >= 1
    assert enabled[1] == 1
    assert enabled[2] > 5
    for _ in range(10):
        bpy.ops.preferences.addon_disable(module=MODULE)
        assert traces() == (0, 0, 0, False)
        bpy.ops.preferences.addon_enable(module=MODULE)
        assert traces() == enabled


@pytest.mark.parametrize("prompt", ["", " ", "x" * 10_000])
def test_generate_refuses_a_senseless_prompt_with_a_sentence(scene, bpy, prompt):
    scene.headstudio.prompt = prompt
    with pytest.raises(RuntimeError, match=r"prompt"):
        bpy.ops.headstudio.generate()
