"""What viewports draw, drawn into a picture without a window, against the engine's own rasteriser."""

import numpy as np
import pytest
from blender.pictures import random_splats
from headstudio.avatar.file import Avatar
from headstudio.avatar.posing import pose_splats
from support.engine_picture import engine_picture

WIDTH, HEIGHT = 160, 120
KEPT = []  # see ``draw``


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

    A GPU context without a window exists inside a render engine alone. What has been drawn is kept, for textures that
    are freed outside it leave their names bound: Mesa gives these to the next textures, and Blender, which takes them
    for bound already, draws the old ones.
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
            KEPT.append(group)
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


def test_a_budget_keeps_what_the_avatar_covers(bpy, scene, avatar, rig, avatars, draw):
    """Half the splats: as much alpha as before, and nearer to the whole than the same splats left at their size."""
    depsgraph = bpy.context.evaluated_depsgraph_get()
    view, projection = look((0.1, -0.6, 0.1))
    avatars.update(depsgraph)
    whole = draw(avatars.group, view, projection)
    avatars.update(depsgraph, budget=1000)
    (drawing,) = avatars.group.drawings
    assert len(drawing.splats) == 1000
    half = draw(avatars.group, view, projection)
    assert half[..., 3].mean() == pytest.approx(whole[..., 3].mean(), rel=0.05)
    bare = draw(avatars.group, view, projection, splat_scale=0.7)
    assert psnr(half, whole) > psnr(bare, whole) + 1
    avatars.update(depsgraph)
    np.testing.assert_array_equal(draw(avatars.group, view, projection), whole)


def test_points_are_squares_of_their_own_size(bpy, scene, avatar, rig, avatars, draw):
    avatars.update(bpy.context.evaluated_depsgraph_get(), budget=20)
    view, projection = look((0.1, -0.6, 0.1))
    for side in (1.0, 4.0):
        covered = (draw(avatars.group, view, projection, point_size=side)[..., 3] > 0.99).sum()
        assert 0.8 * 20 * side**2 < covered <= 1.05 * 20 * side**2


def test_only_what_changed_is_computed_again(bpy, scene, avatar, rig, avatars):
    """A view that turns poses nothing; what moves is posed alone."""
    twin = bpy.data.objects.new("Twin", rig.mesh.data)
    scene.collection.objects.link(twin)

    def versions():
        avatars.update(bpy.context.evaluated_depsgraph_get())
        return {key: drawing.version for key, drawing in avatars._drawings.items()}

    first = versions()
    assert len(first) == 2
    assert versions() == first
    rig.armature.location.z = 0.1
    second = versions()
    assert {key: second[key] - first[key] for key in first} == {
        (rig.mesh.session_uid,): 1,
        (twin.session_uid,): 0,
    }
    twin.location.x = 1.0
    third = versions()
    assert third[twin.session_uid,] == second[twin.session_uid,] + 1
    assert third[rig.mesh.session_uid,] == second[rig.mesh.session_uid,]
    # What both carry is on the GPU once
    assert len(avatars.group._splats) == 1


def test_hidden_linked_and_overridden_avatars(bpy, scene, addon, avatar, rig, avatars, tmp_path):
    """A library's avatar, linked as an instance and overridden, carries its splats; what is hidden is not drawn."""
    path = str(tmp_path / "library.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)

    def seen():
        bpy.context.view_layer.update()
        avatars.update(bpy.context.evaluated_depsgraph_get())
        return len(avatars.group.drawings)

    with bpy.data.libraries.load(path, link=True) as (_, data):
        data.collections = ["Noise"]
    instance = bpy.data.objects.new("Instance", None)
    bpy.context.scene.collection.objects.link(instance)
    instance.instance_type, instance.instance_collection = "COLLECTION", data.collections[0]
    assert seen() == 1
    instance.location = 0.3, 0, 0
    before = avatars.group.drawings[0].centre
    assert seen() == 1
    np.testing.assert_allclose(avatars.group.drawings[0].centre - before, [0.3, 0, 0], atol=1e-6)
    instance.hide_set(True)
    assert seen() == 0
    overridden = data.collections[0].override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    mesh = next(item for item in overridden.all_objects if item.type == "MESH")
    assert mesh.override_library
    assert seen() == 1
    bpy.context.view_layer.layer_collection.children[overridden.name].exclude = True
    assert seen() == 0


def test_rectangle_around_splats_holds_all_of_them(bpy, scene, addon, avatar, rig, avatars, draw):
    from bl_ext.user_default.headstudio.blender_addon.view_rectangle import covered_rectangle

    avatars.update(bpy.context.evaluated_depsgraph_get())
    (drawing,) = avatars.group.drawings
    for eye, target, ortho in (((0.1, -0.9, 0.2), (0.1, 0, 0.2), 0.0), ((0.5, -1.0, 0), (0, 0, 0.1), 1.2)):
        view, projection = look(eye, target, ortho)
        box = covered_rectangle(drawing.bounds(1.5), projection @ view, WIDTH, HEIGHT, margin=2)
        picture = draw(avatars.group, view, projection, splat_scale=1.5)[::-1, :, 3]
        rows, columns = np.nonzero(picture)
        assert box.left <= columns.min() <= columns.max() < box.right
        assert box.bottom <= rows.min() <= rows.max() < box.top
        assert box.width * box.height < WIDTH * HEIGHT
    view, projection = look((0, 0, 0), (0, -1, 0))
    assert covered_rectangle(drawing.bounds(), projection @ view, WIDTH, HEIGHT, margin=2) == (0, 0, WIDTH, HEIGHT)
