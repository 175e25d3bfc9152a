"""An avatar that comes into the scene can be seen: views that show it as a speck are moved to it, others left alone."""

from __future__ import annotations

import numpy as np
import pytest
from headstudio.avatar.file import Avatar, bake_identity, save_avatar
from headstudio.avatar.splats import SplatArrays
from headstudio.heads.default_head import default_head

FRAMING = "sys.modules['bl_ext.user_default.headstudio.blender_addon.framing']"
HEAD = "bpy.data.objects['seen']"


@pytest.fixture
def file(tmp_path):
    """Red balls all over the default head."""
    head = bake_identity(default_head())
    count = len(head.triangles)
    splats = SplatArrays(
        triangle=np.arange(count, dtype=np.int32),
        offset=np.zeros((count, 3), np.float32),
        scale=np.ones((count, 3), np.float32),
        rotation=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        sh=np.tile(np.array([1.7, -1.7, -1.7], np.float32), (count, 1, 1)),
        opacity=np.ones(count, np.float32),
    )
    path = tmp_path / "seen.avatar.npz"
    save_avatar(path, Avatar(head, splats))
    return path


def look(blender, distance: float, perspective: str) -> None:
    blender.ask(f"[setattr(view(), 'view_perspective', '{perspective}'), setattr(view(), 'view_distance', {distance})]")
    blender.ask("[setattr(view(), 'view_location', (0, 0, 0)), view().update()]")
    blender.until(f"len(drawn) > {blender.ask('redraw()')}", seconds=120)


def bring_in(blender, file) -> float:
    """Import the avatar; returns how large it is then to be seen."""
    assert "FINISHED" in blender.ask(f"in_viewport(bpy.ops.import_scene.headstudio_avatar, filepath={str(file)!r})")
    blender.until(f"len(drawn) > {blender.ask('redraw()')}", seconds=120)
    size = f"{FRAMING}.apparent_radius(view(), *{FRAMING}.sphere_around({HEAD}))"
    return blender.ask(size)


def remove(blender) -> None:
    blender.ask("[bpy.data.objects.remove(bpy.data.objects[name]) for name in ('seen', 'seen rig')]")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_view_that_hardly_shows_the_avatar_is_moved_to_it(blender, pictures, file):
    for perspective in ("PERSP", "ORTHO"):
        look(blender, 18, perspective)
        turned = blender.ask("view().view_rotation[:]")
        assert bring_in(blender, file) == pytest.approx(0.7, abs=0.02)
        assert blender.ask("view().view_rotation[:]") == turned
        blender.picture(pictures / f"framed-{perspective.lower()}.png")
        remove(blender)

    look(blender, 0.8, "PERSP")  # near enough already
    bring_in(blender, file)
    assert blender.ask("view().view_distance") == pytest.approx(0.8)
    remove(blender)

    look(blender, 18, "CAMERA")
    bring_in(blender, file)
    assert blender.ask("(view().view_perspective, view().view_distance)") == ["CAMERA", pytest.approx(18)]
    assert not blender.ask("'FINISHED' in in_viewport(lambda: bpy.ops.headstudio.frame_avatar.poll() and {'FINISHED'})")
    look(blender, 18, "PERSP")
    assert "FINISHED" in blender.ask("in_viewport(bpy.ops.headstudio.frame_avatar)")
    assert blender.ask("view().view_distance") < 1
    remove(blender)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_moves_only_views_that_nobody_has_moved_since(blender, file):
    manager = "bpy.context.window_manager"
    for moved in (False, True):
        look(blender, 18, "PERSP")
        blender.ask(f"globals().update(asked={FRAMING}.poses({manager}))")
        blender.ask(f"str(bpy.ops.import_scene.headstudio_avatar(filepath={str(file)!r}, frame=False))")
        if moved:
            look(blender, 17, "PERSP")
        blender.ask(f"{FRAMING}.show({HEAD}, {manager}, asked)")
        assert (blender.ask("view().view_distance") == pytest.approx(17)) == moved
        remove(blender)
