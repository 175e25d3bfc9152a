"""The HEADSTUDIO engine's picture against the engine's own rasteriser, for every way to point a camera at an avatar."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import psnr
from shots import HEIGHT, WIDTH, expected, read, shoot


def test_ten_poses_and_cameras_equal_the_engines_pictures(bpy, scene, addon, rig, avatar, camera, tmp_path, capsys):
    rng = np.random.default_rng(1)
    neck = rig.armature.pose.bones["neck"]
    neck.rotation_mode = "XYZ"
    scores = []
    for index in range(10):
        camera.location = rng.normal(size=3) * 0.05 + [0, -0.5, 0]
        camera.rotation_euler = rng.normal(size=3) * 0.1 + [np.pi / 2, 0, 0]
        camera.data.lens, camera.data.ortho_scale = rng.uniform(35, 70), rng.uniform(0.3, 0.5)
        camera.data.type = ("PERSP", "PERSP", "ORTHO")[index % 3]
        camera.data.sensor_fit = ("AUTO", "HORIZONTAL", "VERTICAL", "AUTO")[index % 4]
        camera.data.shift_x, camera.data.shift_y = rng.normal(size=2) * 0.04
        scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = ((1, 1), (1.5, 1), (1, 2))[index // 4]
        scene.render.resolution_x = (WIDTH, 90)[index % 2]
        scene.render.resolution_percentage = (100, 77)[index // 5]
        for key in list(rig.mesh.data.shape_keys.key_blocks)[1:5]:
            key.value = rng.random()
        neck.rotation_euler = rng.normal(size=3) * 0.3
        rig.armature.rotation_euler = rng.normal(size=3) * 0.2
        picture = shoot(bpy, scene, tmp_path)
        colour, alpha = expected(bpy, addon, scene, rig.mesh, avatar.splats)
        assert alpha.mean() > 0.05
        np.testing.assert_allclose(picture[..., 3], alpha, atol=0.02)
        scores.append(psnr(picture, colour))
    with capsys.disabled():
        print(f"\nPSNR of Blender's picture to the engine's, dB: {', '.join(f'{score:.1f}' for score in scores)}")
    assert min(scores) > 45, scores


def test_a_border_changes_no_pixel(bpy, scene, rig, camera, tmp_path):
    whole = shoot(bpy, scene, tmp_path)
    render = scene.render
    render.use_border = True
    render.border_min_x, render.border_max_x, render.border_min_y, render.border_max_y = 0.31, 0.777, 0.2, 0.61
    columns, rows = slice(49, 124), slice(HEIGHT - 73, HEIGHT - 24)
    framed = shoot(bpy, scene, tmp_path)
    assert framed.shape == whole.shape
    np.testing.assert_array_equal(framed[rows, columns], whole[rows, columns])
    framed[rows, columns] = 0
    assert framed.max() == 0
    render.use_crop_to_border = True
    np.testing.assert_array_equal(shoot(bpy, scene, tmp_path), whole[rows, columns])


def test_an_opaque_film_shows_the_world(bpy, scene, addon, rig, avatar, camera, tmp_path):
    """The engine blends its background in display-referred colour, and so is the world's."""
    scene.render.film_transparent = False
    scene.world = bpy.data.worlds.new("World")
    shown = np.array([0.2, 0.5, 0.8])
    scene.world.color = ((shown + 0.055) / 1.055) ** 2.4
    picture = shoot(bpy, scene, tmp_path)
    colour, alpha = expected(bpy, addon, scene, rig.mesh, avatar.splats)
    assert picture[..., 3].min() == 1
    assert psnr(picture, colour + (1 - alpha[..., None]) * shown) > 45


def test_an_animation_follows_the_timeline(bpy, scene, addon, rig, avatar, camera, tmp_path):
    """Ctrl-F12: keyed sliders and bones, and a camera that moves."""
    neck, smile = rig.armature.pose.bones["neck"], rig.mesh.data.shape_keys.key_blocks["mouthSmileLeft"]
    neck.rotation_mode = "XYZ"
    for frame, turn in ((1, 0.0), (3, 0.6)):
        smile.value, neck.rotation_euler, camera.location.x = turn, (0, turn, 0), turn / 8
        smile.keyframe_insert("value", frame=frame)
        neck.keyframe_insert("rotation_euler", frame=frame)
        camera.keyframe_insert("location", frame=frame)
    scene.frame_start, scene.frame_end = 1, 3
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "16"
    scene.render.filepath = str(tmp_path / "frame_")
    assert bpy.ops.render.render(animation=True) == {"FINISHED"}
    pictures = [read(bpy, tmp_path / f"frame_{frame:04d}.png") for frame in (1, 2, 3)]
    for frame, picture in zip((1, 2, 3), pictures, strict=True):
        scene.frame_set(frame)
        colour, _ = expected(bpy, addon, scene, rig.mesh, avatar.splats)
        assert psnr(picture, colour) > 45
    assert psnr(pictures[0], pictures[2][..., :3] * pictures[2][..., 3:]) < 30


def test_a_collection_instance_shows_the_avatar_again(bpy, scene, rig, camera, tmp_path):
    camera.data.type, camera.data.ortho_scale = "ORTHO", 0.8
    alone = shoot(bpy, scene, tmp_path)[..., 3]
    twin = bpy.data.objects.new("Twin", None)
    twin.instance_type, twin.instance_collection = "COLLECTION", rig.collection
    scene.collection.objects.link(twin)
    pixels = 24
    twin.location.x = camera.data.ortho_scale * pixels / WIDTH
    both = shoot(bpy, scene, tmp_path)[..., 3]
    np.testing.assert_allclose(both, 1 - (1 - alone) * (1 - np.roll(alone, pixels, 1)), atol=0.02)


def test_what_cannot_be_rendered_is_said_in_a_sentence(bpy, scene, rig, camera, tmp_path):
    scene.render.resolution_x, scene.render.resolution_y = 20000, 4
    with pytest.raises(RuntimeError, match="20000 x 4 pixels is too large"):
        shoot(bpy, scene, tmp_path)
    scene.render.resolution_x = 32
    camera.data.type = "PANO"
    with pytest.raises(RuntimeError, match="Camera is no perspective or orthographic camera"):
        shoot(bpy, scene, tmp_path)
    camera.data.type = "PERSP"
    rig.mesh.data.headstudio.splats.attributes.remove(rig.mesh.data.headstudio.splats.attributes["opacity"])
    assert shoot(bpy, scene, tmp_path).max() == 0  # nothing to draw; a warning says why


def test_blenders_own_panels_stay(bpy, addon):
    """Resolution, output, colour management, lens and shape keys; and they know nothing of us once we are gone."""
    wanted = (
        "RENDER_PT_format",
        "RENDER_PT_output",
        "RENDER_PT_color_management",
        "DATA_PT_lens",
        "DATA_PT_shape_keys",
    )
    panels = [getattr(bpy.types, name) for name in wanted]
    assert all("HEADSTUDIO" in panel.COMPAT_ENGINES for panel in panels)
    assert "HEADSTUDIO" not in bpy.types.RENDER_PT_freestyle.COMPAT_ENGINES
    addon.engine_panels.unregister()
    assert not any("HEADSTUDIO" in panel.COMPAT_ENGINES for panel in panels)
    addon.engine_panels.register()
