"""Which landmarks a camera sees: against the sphere's analytic answer and a brute-force second implementation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from headstudio.camera import Camera, orbit
from headstudio.condition.landmarks import landmark_points, landmark_visibility, visible_landmarks
from headstudio.heads.arrays import Landmarks
from support.synthetic_head import icosphere, synthetic_head

AZIMUTHS = torch.tensor([0.0, 35.0, 90.0, 180.0, -120.0])


def as_orthographic(camera: Camera, pixels_per_metre: float) -> Camera:
    intrinsics = camera.intrinsics.clone()
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = pixels_per_metre
    return replace(camera, intrinsics=intrinsics, orthographic=True)


def brute_force(points, vertices, triangles, camera, tolerance) -> np.ndarray:
    """One camera, in float64, triangle by triangle: solve for the crossing of line and triangle."""
    world_to_camera = camera.world_to_camera.double().numpy()
    points = points.double().numpy() @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    vertices = vertices.double().numpy() @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    seen = points[:, 2] > camera.near
    for i, point in enumerate(points):
        start = np.array([*point[:2], 0.0]) if camera.orthographic else np.zeros(3)
        for a, b, c in vertices[triangles.numpy()]:
            system = np.stack([b - a, c - a, start - point], 1)
            if np.linalg.det(system) == 0:
                continue
            u, v, s = np.linalg.solve(system, start - a)
            crossing = start + s * (point - start)
            in_front = s < 1 and np.linalg.norm(point - crossing) > tolerance
            if u >= 0 and v >= 0 and u + v <= 1 and crossing[2] > camera.near and in_front:
                seen[i] = False
    return seen


def test_points_are_barycentric_and_differentiable():
    head = synthetic_head(2)
    table = Landmarks(
        np.array([468, 10, 0], np.int32),
        np.array([5, 0, 100], np.int32),
        np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.5, 0.5]], np.float32),
    )
    head = replace(head, landmarks=table)
    vertices = torch.tensor(head.vertices, dtype=torch.float64).repeat(2, 3, 1, 1).requires_grad_()
    points = landmark_points(head, vertices)
    assert points.shape == (2, 3, 3, 3)
    corners = head.vertices[head.triangles[[5, 0, 100]]]
    expected = [0.2 * corners[0, 0] + 0.3 * corners[0, 1] + 0.5 * corners[0, 2], corners[1, 0], corners[2, 1:].mean(0)]
    np.testing.assert_allclose(points[1, 2].detach().numpy(), expected, atol=1e-7)
    points.sum().backward()
    expected = np.zeros(len(head.vertices))
    np.add.at(expected, head.triangles[table.triangles], table.barycentric)
    np.testing.assert_allclose(vertices.grad[0, 0, :, 2].numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("orthographic", [False, True])
def test_a_sphere_hides_its_far_side(orthographic):
    vertices, triangles = (torch.as_tensor(a) for a in icosphere(4))
    vertices = 0.1 * vertices.float()
    camera = orbit(AZIMUTHS, 20.0, 0.5, 40.0, 512)
    if orthographic:
        camera = as_orthographic(camera, 2000)
    points = vertices[::20]
    seen = landmark_visibility(
        points.expand(len(AZIMUTHS), -1, -1), vertices.expand(len(AZIMUTHS), -1, -1), triangles.long(), camera, 2e-3
    )
    towards = -camera.world_to_camera[:, None, 2, :3] if orthographic else camera.centre[:, None] - points
    facing = (torch.nn.functional.normalize(points, dim=-1) * torch.nn.functional.normalize(towards, dim=-1)).sum(-1)
    # A point that faces away by the angle a lies under a chord of length 2 r sin(a), which the tolerance forgives
    clear = (facing > 0.02) | (facing < -0.05)
    assert clear.float().mean() > 0.9
    assert torch.equal(seen[clear], facing[clear] > 0)
    assert 0.3 < seen.float().mean() < 0.6


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_triangles_against_brute_force(orthographic, seed):
    """Triangles of every size around the camera, some behind it and some across its plane."""
    rng = torch.Generator().manual_seed(seed)
    triangles = torch.arange(180).reshape(60, 3)
    centres = 0.6 * torch.randn(2, 60, 1, 3, generator=rng)
    size = torch.rand(2, 60, 1, 1, generator=rng).square()
    vertices = (centres + size * torch.randn(2, 60, 3, 3, generator=rng)).flatten(1, 2)
    points = 0.5 * torch.randn(2, 40, 3, generator=rng)
    camera = orbit(torch.tensor([10.0, -150.0]), 15.0, 1.0, 60.0, 256)
    if orthographic:
        camera = as_orthographic(camera, 100)
    seen = landmark_visibility(points, vertices, triangles, camera, 0.01)
    expected = [brute_force(points[i], vertices[i], triangles, camera[i], 0.01) for i in range(2)]
    assert seen.numpy().tolist() == np.stack(expected).tolist()
    assert 0 < seen.float().mean() < 1


def plate(z: float) -> torch.Tensor:
    """A square of side 1 at height z, as two triangles' corners [4, 3]."""
    return torch.tensor([[-0.5, -0.5, z], [0.5, -0.5, z], [0.5, 0.5, z], [-0.5, 0.5, z]])


PLATE = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("gap", "seen"), [(-0.1, True), (0.0, True), (0.004, True), (0.006, False), (0.3, False)])
def test_tolerance_is_the_distance_to_what_covers(orthographic, flipped, gap, seen):
    camera = orbit(0.0, 0.0, 2.0, 40.0, 64)
    if orthographic:
        camera = as_orthographic(camera, 50)
    triangles = PLATE.flip(1) if flipped else PLATE
    for x, y in ((0.0, 0.0), (0.2, -0.1), (-0.3, -0.3)):  # the first and last lie on the seam
        points = torch.tensor([[x * (1 if orthographic else 0.9), y * (1 if orthographic else 0.9), 0.0]])
        assert landmark_visibility(points, plate(gap), triangles, camera, 0.005).item() is seen


def test_what_is_behind_the_near_plane_neither_hides_nor_shows():
    camera = orbit(0.0, 0.0, 2.0, 40.0, 64)  # at z = 2, near plane at z = 1.99
    point = torch.tensor([[0.0, 0.0, 0.0]])
    assert not landmark_visibility(point, plate(1.9), PLATE, camera, 0.01).item()
    assert landmark_visibility(point, plate(1.995), PLATE, camera, 0.01).item()
    assert landmark_visibility(point, plate(2.1), PLATE, camera, 0.01).item()
    for z, seen in ((1.98, True), (1.995, False), (2.5, False)):
        assert landmark_visibility(torch.tensor([[0.0, 0.0, z]]), plate(-1.0), PLATE, camera, 0.01).item() is seen


def test_tolerance_per_landmark_and_leading_dimensions():
    camera = orbit(torch.zeros(2, 3), 0.0, 2.0, 40.0, 64)
    points = torch.zeros(2, 3, 2, 3)
    vertices = plate(0.05).expand(2, 3, 4, 3)
    seen = landmark_visibility(points, vertices, PLATE, camera, torch.tensor([0.01, 0.1]))
    assert seen.shape == (2, 3, 2)
    assert seen.unique(dim=0).tolist() == [[[False, True]] * 3]


def test_no_landmarks_at_all():
    camera = orbit(torch.zeros(2), 0.0, 2.0, 40.0, 64)
    assert landmark_visibility(torch.zeros(2, 0, 3), plate(0.1).expand(2, 4, 3), PLATE, camera).shape == (2, 0)


def test_tolerance_and_lift_by_group():
    """On a sphere, a little beyond its outline: the oval still counts as seen, the rest does not; nor under a lid."""
    sphere, triangles = icosphere(5)
    head = synthetic_head(1)
    extent = 0.29
    vertices = (0.5 * extent * sphere).astype(np.float32)
    outline = np.argmin(np.abs(sphere - [np.cos(0.12), 0, -np.sin(0.12)]).sum(1))  # 7 degrees beyond, seen from +z
    front = np.argmax(sphere[:, 2])
    z = 0.5 * extent + 0.001
    lid = [[-0.02, -0.02, z], [0.02, -0.02, z], [0.0, 0.03, z]]

    def table(indices, corners):
        rows = [np.flatnonzero((triangles == corner).any(1))[0] for corner in corners]
        weights = [(triangles[row] == corner) for row, corner in zip(rows, corners, strict=True)]
        return Landmarks(np.array(indices, np.int32), np.array(rows, np.int32), np.array(weights, np.float32))

    head = replace(
        head,
        vertices=np.concatenate([vertices, lid]).astype(np.float32),
        triangles=np.concatenate([triangles, [len(vertices) + np.arange(3)]]).astype(np.int32),
        identity=np.zeros((0, len(vertices) + 3, 3), np.float32),
        identity_names=(),
        expression=np.zeros((len(head.expression_names), len(vertices) + 3, 3), np.float32),
        pose_correctives=np.zeros((36, len(vertices) + 3, 3), np.float32),
        joint_regressor=np.zeros((5, len(vertices) + 3), np.float32),
        skin_weights=np.zeros((len(vertices) + 3, 5), np.float32),
        uv_triangles=np.zeros((len(triangles) + 1, 3), np.int32),
        region=np.zeros(len(triangles) + 1, np.uint8),
        landmarks=table([10, 13, 13, 468], [outline, outline, front, front]),
    )
    camera = as_orthographic(orbit(0.0, 0.0, 1.0, 40.0, 512), 1000)
    seen = visible_landmarks(head, torch.tensor(head.vertices), camera)
    assert seen.tolist() == [True, False, True, False]
