"""Splats in the .blend, and the HEADSTUDIO engine's picture against the engine's own rasteriser."""

import numpy as np
import pytest
import torch
from headstudio.avatar.file import Avatar, bake_identity, save_avatar
from headstudio.avatar.posing import pose_splats
from headstudio.avatar.splats import SplatArrays
from headstudio.camera import Camera
from headstudio.gaussians import Gaussians
from headstudio.rasterise import rasterise
from support.synthetic_head import synthetic_head


def random_splats(head, count, coefficients, seed=0):
    rng = np.random.default_rng(seed)
    rotation = rng.normal(size=(count, 4))
    return SplatArrays(
        triangle=rng.integers(0, len(head.triangles), count).astype(np.int32),
        offset=(0.3 * rng.normal(size=(count, 3))).astype(np.float32),
        scale=np.exp(0.4 * rng.normal(size=(count, 3)) - 1).astype(np.float32),
        rotation=(rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).astype(np.float32),
        sh=(0.4 * rng.normal(size=(count, coefficients, 3))).astype(np.float32),
        opacity=rng.random(count).astype(np.float32),
    )


@pytest.fixture
def avatar():
    head = bake_identity(synthetic_head(levels=3))
    return Avatar(head, random_splats(head, 3000, 16), {"prompt": "noise"})


@pytest.fixture
def rig(scene, addon, avatar):
    return addon.import_avatar.import_avatar(avatar, "Noise", scene.collection)


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


def engine_picture(bpy, addon, scene, item, splats, width, height):
    """The engine's CPU render of the evaluated mesh through the scene's camera: colour and alpha."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    evaluated = item.evaluated_get(depsgraph)
    posed = pose_splats(splats, *addon.final_render.mesh_arrays(evaluated.data, evaluated.matrix_world))
    arrays = (posed.means, posed.quats, posed.scales, posed.opacities, posed.sh)
    gaussians = Gaussians(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
    view = np.array(scene.camera.matrix_world.normalized().inverted())
    p = np.array(scene.camera.calc_matrix_camera(depsgraph, x=width, y=height))
    intrinsics = torch.tensor(
        [
            [width / 2 * p[0, 0], 0, width / 2 * (1 - p[0, 2] + p[0, 3])],
            [0, height / 2 * p[1, 1], height / 2 * (1 + p[1, 2] - p[1, 3])],
            [0, 0, 1],
        ],
        dtype=torch.float32,
    )
    camera = Camera(
        world_to_camera=torch.tensor(np.diag([1, -1, -1, 1]) @ view, dtype=torch.float32),
        intrinsics=intrinsics,
        width=width,
        height=height,
        orthographic=bool(p[3, 3] > 0.5),
    )
    render = rasterise(gaussians, camera)
    return render.colour.numpy(), render.alpha.numpy()


def render_linear(bpy, scene, tmp_path, width, height):
    """F12 with the HEADSTUDIO engine; the film is transparent and the file holds what the view transform shows."""
    scene.render.engine = "HEADSTUDIO"
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "16"
    scene.render.filepath = str(tmp_path / "picture.png")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    image.colorspace_settings.name = "Non-Color"
    pixels = np.array(image.pixels[:], np.float32).reshape(height, width, 4)[::-1]
    bpy.data.images.remove(image)
    return pixels


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
        picture = render_linear(bpy, scene, tmp_path, width, height)
        colour, alpha = engine_picture(bpy, addon, scene, rig.mesh, avatar.splats, width, height)
        assert alpha.mean() > 0.1
        np.testing.assert_allclose(picture[..., 3], alpha, atol=0.02)
        error = picture[..., :3] * picture[..., 3:] - np.clip(colour, 0, 1)
        scores.append(-10 * np.log10(np.square(error).mean()))
    assert min(scores) > 40, scores


def test_import_operator_names_a_damaged_file(bpy, scene, avatar, tmp_path):
    path = tmp_path / "hurt.avatar.npz"
    save_avatar(path, avatar)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match=r"hurt\.avatar\.npz"):
        bpy.ops.import_scene.headstudio_avatar(filepath=str(path))
    assert not scene.collection.all_objects
