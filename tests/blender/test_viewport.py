"""What viewports draw, drawn into a picture without a window, against the engine's own rasteriser."""

import numpy as np
import pytest
from blender.pictures import random_splats
from headstudio.avatar.file import Avatar, bake_identity
from headstudio.avatar.posing import pose_splats
from support.engine_picture import engine_picture
from support.synthetic_head import synthetic_head

WIDTH, HEIGHT = 160, 120


@pytest.fixture
def avatar():
    head = bake_identity(synthetic_head(levels=3))
    return Avatar(head, random_splats(head, 2000, 16), {"prompt": "noise"})


@pytest.fixture
def rig(scene, addon, avatar):
    return addon.import_avatar.import_avatar(avatar, "Noise", scene.collection)


@pytest.fixture
def avatars(addon):
    return addon.scene_avatars.SceneAvatars()


def look(eye, target=(0, 0, 0), ortho=0.0):
    """View and projection matrices of a viewport that looks from ``eye`` at ``target``, z up."""
    from mathutils import Vector

    away = (Vector(eye) - Vector(target)).normalized()
    world = away.to_track_quat("Z", "Y").to_matrix().to_4x4()
    world.translation = eye
    view = np.array(world.inverted())
    projection = np.zeros((4, 4))
    if ortho:
        projection[[0, 1, 2, 3], [0, 1, 2, 3]] = 2 / ortho, 2 / ortho * WIDTH / HEIGHT, -0.1, 1
    else:
        projection[[0, 1], [0, 1]] = 2.5, 2.5 * WIDTH / HEIGHT
        projection[2, 2:], projection[3, 2] = (-1.0002, -0.02), -1
    return view, projection


@pytest.fixture
def draw(bpy, scene):
    """Draws a group as a viewport does: premultiplied RGBA [H, W, 4], top row first.

    A GPU context without a window exists inside a render engine alone.
    """
    import gpu

    jobs, results = [], []

    class Drawer(bpy.types.RenderEngine):
        bl_idname = "HEADSTUDIO_TEST_DRAWER"
        bl_label = "Drawer"
        bl_use_gpu_context = True

        def render(self, _depsgraph):
            try:
                results.append(jobs.pop()())
            except BaseException as error:
                results.append(error)

    def picture(group, view, projection, **options):
        def job():
            offscreen = gpu.types.GPUOffScreen(WIDTH, HEIGHT, format="RGBA16F")
            with offscreen.bind():
                framebuffer = gpu.state.active_framebuffer_get()
                framebuffer.clear(color=(0, 0, 0, 0))
                group.draw(view, projection, WIDTH, HEIGHT, **options)
                rows = framebuffer.read_color(0, 0, WIDTH, HEIGHT, 4, 0, "FLOAT")
            rows.dimensions = WIDTH * HEIGHT * 4
            pixels = np.array(rows, np.float32).reshape(HEIGHT, WIDTH, 4)[::-1]
            offscreen.free()
            return pixels

        jobs.append(job)
        scene.render.engine = Drawer.bl_idname
        scene.render.resolution_x = scene.render.resolution_y = 8
        bpy.ops.render.render()
        result = results.pop()
        if isinstance(result, BaseException):
            raise result
        return result

    bpy.utils.register_class(Drawer)
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
        scene.collection.objects.link(scene.camera)
    yield picture
    scene.render.engine = "BLENDER_WORKBENCH"
    bpy.utils.unregister_class(Drawer)


def merged(parts):
    """Several posed avatars as one."""
    names = ("means", "quats", "scales", "opacities", "sh")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return type(parts[0])(**arrays)


def expected(parts, view, projection):
    """Premultiplied RGBA [H, W, 4] by the engine's CPU rasteriser, all splats of ``parts`` together."""
    intrinsics = np.array(
        [
            [WIDTH / 2 * projection[0, 0], 0, WIDTH / 2],
            [0, HEIGHT / 2 * projection[1, 1], HEIGHT / 2],
            [0, 0, 1],
        ]
    )
    orthographic = projection[3, 3] > 0.5
    colour, alpha = engine_picture(
        merged(parts), np.diag([1, -1, -1, 1]) @ view, intrinsics, WIDTH, HEIGHT, bool(orthographic)
    )
    return np.concatenate([colour, alpha[..., None]], -1)


def posed(bpy, item, splats, matrix=None):
    """The splats on ``item``'s evaluated mesh by the engine's own arithmetic, read by Blender's slow, plain way."""
    evaluated = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
    matrix = np.array(evaluated.matrix_world if matrix is None else matrix)
    points = np.array([vertex.co for vertex in evaluated.data.vertices])
    triangles = np.array([list(face.vertices) for face in evaluated.data.polygons])
    return pose_splats(splats, (points @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32), triangles)


def psnr(picture, target):
    assert target[..., 3].mean() > 0.03
    return -10 * np.log10(np.square(picture - target).mean())


def pose(rig, seed):
    rng = np.random.default_rng(seed)
    for key in list(rig.mesh.data.shape_keys.key_blocks)[1:5]:
        key.value = rng.random()
    rig.armature.pose.bones["neck"].rotation_mode = "XYZ"
    rig.armature.pose.bones["neck"].rotation_euler = rng.normal(size=3) * 0.3


@pytest.mark.parametrize("ortho", [0.0, 0.4])
def test_a_posed_avatar_equals_the_engines_picture(bpy, scene, avatar, rig, avatars, draw, ortho):
    view, projection = look((0.1, -0.6, 0.1), ortho=ortho)
    for seed in range(2):
        pose(rig, seed)
        avatars.update(bpy.context.evaluated_depsgraph_get())
        picture = draw(avatars.group, view, projection)
        assert psnr(picture, expected([posed(bpy, rig.mesh, avatar.splats)], view, projection)) > 40


def test_instances_duplicates_and_two_avatars_in_each_other(bpy, scene, addon, avatar, rig, avatars, draw):
    """An instanced collection turned and squashed, and another avatar whose splats lie among the first's."""
    second = Avatar(avatar.head, random_splats(avatar.head, 1500, 4, seed=5), {})
    other = addon.import_avatar.import_avatar(second, "Other", scene.collection)
    other.armature.location = 0.02, 0.01, 0.0
    empty = bpy.data.objects.new("Empty", None)
    scene.collection.objects.link(empty)
    empty.instance_type, empty.instance_collection = "COLLECTION", rig.collection
    empty.location, empty.rotation_euler, empty.scale = (0.12, 0.1, 0.0), (0.2, 0.3, 1.0), (1.0, 0.6, 1.2)
    bpy.context.view_layer.update()
    avatars.update(bpy.context.evaluated_depsgraph_get())
    assert len(avatars.group.drawings) == 3
    view, projection = look((0.1, -0.8, 0.1), (0.05, 0, 0))
    parts = [
        posed(bpy, rig.mesh, avatar.splats),
        posed(bpy, rig.mesh, avatar.splats, np.array(empty.matrix_world) @ np.array(rig.mesh.matrix_world)),
        posed(bpy, other.mesh, second.splats),
    ]
    second_padded = np.zeros((1500, 16, 3), np.float32)
    second_padded[:, :4] = parts[2].sh
    parts[2] = type(parts[2])(parts[2].means, parts[2].quats, parts[2].scales, parts[2].opacities, second_padded)
    target = expected(parts, view, projection)
    assert psnr(draw(avatars.group, view, projection), target) > 40
    # One after the other is not the same: the splats do lie among each other
    alone = [draw(avatars.group, view, projection, shown=[i == k for i in range(3)]) for k in range(3)]
    over = np.zeros_like(target)
    for layer in alone:
        over = layer + over * (1 - layer[..., 3:])
    assert psnr(over, target) < 35
