"""Splats in the .blend, and the HEADSTUDIO engine's picture against the engine's own rasteriser."""

import numpy as np
import pytest
from headstudio.avatar.file import save_avatar
from pictures import picture_by_blender, picture_by_engine, psnr


def test_splats_survive_the_blend_file(bpy, addon, rig, avatar, tmp_path):
    path = str(tmp_path / "avatar.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=path)
    stored = addon.splat_data.load_splats(bpy.data.objects["Noise"].data.headstudio.splats)
    for name in ("triangle", "offset", "scale", "rotation", "sh", "opacity"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(avatar.splats, name), err_msg=name)


def test_a_mesh_without_splats_is_named(bpy, scene, addon):
    with pytest.raises(ValueError, match="Plain"):
        addon.splat_data.load_splats(bpy.data.meshes.new("Plain"))


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_final_render_equals_the_engines_picture(bpy, scene, addon, rig, avatar, tmp_path, kind):
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.type, camera.data.ortho_scale, camera.data.clip_start = kind, 0.4, 0.01
    camera.data.shift_x, camera.data.shift_y = 0.04, -0.02
    rng = np.random.default_rng(1)
    width, height = 160, 120
    scores = []
    for _ in range(5):
        camera.location = rng.normal(size=3) * 0.05 + [0, -0.5, 0]
        camera.rotation_euler = rng.normal(size=3) * 0.1 + [np.pi / 2, 0, 0]
        camera.data.lens = rng.uniform(35, 70)
        for key in list(rig.mesh.data.shape_keys.key_blocks)[1:5]:
            key.value = rng.random()
        rig.armature.pose.bones["neck"].rotation_mode = "XYZ"
        rig.armature.pose.bones["neck"].rotation_euler = rng.normal(size=3) * 0.3
        picture = picture_by_blender(bpy, scene, tmp_path, width, height)
        colour, alpha = picture_by_engine(bpy, addon, scene, rig.mesh, avatar.splats, width, height)
        assert alpha.mean() > 0.1
        np.testing.assert_allclose(picture[..., 3], alpha, atol=0.02)
        scores.append(psnr(picture, colour))
    assert min(scores) > 40, scores


def test_import_operator_names_a_damaged_file(bpy, scene, avatar, tmp_path):
    path = tmp_path / "hurt.avatar.npz"
    save_avatar(path, avatar)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match=r"hurt\.avatar\.npz"):
        bpy.ops.import_scene.headstudio_avatar(filepath=str(path))
    assert not scene.collection.all_objects
