"""CPU kernels that take Gaussians to the picture plane, and gradients back.

One splat costs little here, so the arithmetic is in double precision and rounds once, when it is stored.
"""

from __future__ import annotations

import math

import numpy as np

from .jit import kernel

# What the blending kernels read of a splat, one row of float32:
# centre x, y (px), conic xx, xy, yy (px^-2), opacity, red, green, blue, depth (m).
SPLAT = 10
# What they hand back per splat and tile: moments of dL/dsigma over the pixel's distance from the centre
# (1, x, y, xx, xy, yy), then dL/d red, green, blue, depth.
SPLAT_GRADIENT = 10
# Gradients of one camera: rotation (9), translation (3), fx, fy, cx, cy, the eye's position (3).
CAMERA_GRADIENT = 19


@kernel
def project(
    start,  # views * N is worked through from here
    stop,  # to here
    means,  # [N, 3]
    quats,  # [N, 4]
    scales,  # [N, 3]
    opacities,  # [N]
    sh,  # [N, K, 3]
    poses,  # [C, 4, 4]
    intrinsics,  # [C, 3, 3]
    eyes,  # [C, 3]
    offsets,  # [C, N, 2] or [0, 0, 2]
    width,
    height,
    near,
    orthographic,
    tile,  # px
    blur,
    alpha_min,
    frustum_margin,
    far,
    quaternion_min_squared,
    sh_constants,
    splats,  # [C * N, SPLAT] out, where radii > 0
    boxes,  # [C * N, 4] out, where radii > 0: first column, first row, end column, end row of the pixels covered
    radii,  # [C * N] out
    tiles,  # [C * N] out: how many tiles the box touches
):
    n = means.shape[0]
    basis = np.empty(16)
    for flat in range(start, stop):
        radii[flat] = 0.0
        tiles[flat] = 0
        c = flat // n
        i = flat - c * n
        opacity = np.float64(opacities[i])
        if not (opacity > alpha_min and opacity < math.inf):
            continue
        length_squared = (
            np.float64(quats[i, 0]) ** 2
            + np.float64(quats[i, 1]) ** 2
            + np.float64(quats[i, 2]) ** 2
            + np.float64(quats[i, 3]) ** 2
        )
        if not (length_squared > quaternion_min_squared and length_squared < math.inf):
            continue
        x, y, z = _camera_point(means, i, poses, c)
        if not (z >= near and z <= far):
            continue
        fx, fy, cx, cy = intrinsics[c, 0, 0], intrinsics[c, 1, 1], intrinsics[c, 0, 2], intrinsics[c, 1, 2]
        if orthographic:
            centre_x, centre_y = fx * x + cx, fy * y + cy
        else:
            centre_x, centre_y = fx * x / z + cx, fy * y / z + cy
        if offsets.shape[0] > 0:
            centre_x += offsets[c, i, 0]
            centre_y += offsets[c, i, 1]
        axes = _axes(quats, scales, i, poses, c)
        u, v = _plane_axes(
            axes, x, y, z, fx, fy, cx, cy, width, height, frustum_margin, orthographic
        )  # fmt: skip
        xx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2] + blur
        xy = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
        yy = v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + blur
        determinant = xx * yy - xy * xy
        if not (determinant > 0.0 and determinant < math.inf):
            continue
        extent = math.sqrt(2.0 * math.log(opacity / alpha_min))
        extent_x, extent_y = extent * math.sqrt(xx), extent * math.sqrt(yy)
        radius_x, radius_y = np.ceil(extent_x), np.ceil(extent_y)
        if not (
            centre_x + radius_x > 0.0
            and centre_x - radius_x < width
            and centre_y + radius_y > 0.0
            and centre_y - radius_y < height
        ):
            continue
        dx, dy, dz = means[i, 0] - eyes[c, 0], means[i, 1] - eyes[c, 1], means[i, 2] - eyes[c, 2]
        length = max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
        count = sh.shape[1]
        _sh_basis(count, dx / length, dy / length, dz / length, sh_constants, basis)
        red = green = blue = sh_constants[10]
        for k in range(count):
            red += basis[k] * sh[i, k, 0]
            green += basis[k] * sh[i, k, 1]
            blue += basis[k] * sh[i, k, 2]
        if not math.isfinite(red + green + blue):
            continue
        splats[flat, 0] = centre_x
        splats[flat, 1] = centre_y
        splats[flat, 2] = yy / determinant
        splats[flat, 3] = -xy / determinant
        splats[flat, 4] = xx / determinant
        splats[flat, 5] = opacity
        splats[flat, 6] = max(red, 0.0)
        splats[flat, 7] = max(green, 0.0)
        splats[flat, 8] = max(blue, 0.0)
        splats[flat, 9] = z
        radii[flat] = max(radius_x, radius_y)
        # Pixels whose centre lies in the box, with room for the single-precision arithmetic of blending.
        slack_x, slack_y = 1e-3 + 1e-4 * extent_x, 1e-3 + 1e-4 * extent_y
        left = max(math.ceil(max(centre_x - extent_x - slack_x, 0.0) - 0.5), 0)
        top = max(math.ceil(max(centre_y - extent_y - slack_y, 0.0) - 0.5), 0)
        right = math.floor(min(centre_x + extent_x + slack_x, np.float64(width)) - 0.5) + 1
        bottom = math.floor(min(centre_y + extent_y + slack_y, np.float64(height)) - 0.5) + 1
        boxes[flat, 0] = left
        boxes[flat, 1] = top
        boxes[flat, 2] = right
        boxes[flat, 3] = bottom
        if right > left and bottom > top:
            tiles[flat] = ((right - 1) // tile - left // tile + 1) * ((bottom - 1) // tile - top // tile + 1)


@kernel
def project_backward(
    start,  # N is worked through from here
    stop,  # to here
    means,  # [N, 3]
    quats,  # [N, 4]
    scales,  # [N, 3]
    opacities,  # [N]
    sh,  # [N, K, 3]
    poses,  # [C, 4, 4]
    intrinsics,  # [C, 3, 3]
    eyes,  # [C, 3]
    width,
    height,
    orthographic,
    blur,
    frustum_margin,
    sh_constants,
    radii,  # [C * N]
    slots,  # [C * N + 1] where each splat's rows of splat_gradients begin
    splat_gradients,  # [P, SPLAT_GRADIENT]
    mean_gradients,  # [N, 3] out
    quat_gradients,  # [N, 4] out
    scale_gradients,  # [N, 3] out
    opacity_gradients,  # [N] out
    sh_gradients,  # [N, K, 3] out
    offset_gradients,  # [C, N, 2] out
    camera_gradients,  # [C, CAMERA_GRADIENT] this task's share, out
):
    n = means.shape[0]
    count = sh.shape[1]
    basis = np.empty(16)
    slopes = np.empty((16, 3))
    g = np.empty(SPLAT_GRADIENT)
    to_mean, to_scale, to_sh = np.empty(3), np.empty(3), np.empty((count, 3))
    to_quat = np.empty(4)
    for i in range(start, stop):
        to_mean[:] = 0.0
        to_scale[:] = 0.0
        to_quat[:] = 0.0
        to_sh[:] = 0.0
        to_opacity = 0.0
        for c in range(poses.shape[0]):
            flat = c * n + i
            first, end = slots[flat], slots[flat + 1]
            if not radii[flat] > 0.0 or first == end:
                offset_gradients[c, i, 0] = 0.0
                offset_gradients[c, i, 1] = 0.0
                continue
            g[:] = 0.0
            for slot in range(first, end):
                for k in range(SPLAT_GRADIENT):
                    g[k] += splat_gradients[slot, k]
            to_opacity -= g[0] / opacities[i]
            camera = camera_gradients[c]

            # Colour: spherical harmonics seen from the eye.
            dx, dy, dz = means[i, 0] - eyes[c, 0], means[i, 1] - eyes[c, 1], means[i, 2] - eyes[c, 2]
            length = max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
            dx, dy, dz = dx / length, dy / length, dz / length
            _sh_basis(count, dx, dy, dz, sh_constants, basis)
            for channel in range(3):
                colour = sh_constants[10]
                for k in range(count):
                    colour += basis[k] * sh[i, k, channel]
                if colour < 0.0:
                    g[6 + channel] = 0.0
                for k in range(count):
                    to_sh[k, channel] += basis[k] * g[6 + channel]
            if count > 1:
                _sh_slopes(count, dx, dy, dz, sh_constants, slopes)
                tx = ty = tz = 0.0
                for k in range(1, count):
                    to_basis = g[6] * sh[i, k, 0] + g[7] * sh[i, k, 1] + g[8] * sh[i, k, 2]
                    tx += to_basis * slopes[k, 0]
                    ty += to_basis * slopes[k, 1]
                    tz += to_basis * slopes[k, 2]
                along = tx * dx + ty * dy + tz * dz
                tx, ty, tz = (tx - along * dx) / length, (ty - along * dy) / length, (tz - along * dz) / length
                to_mean[0] += tx
                to_mean[1] += ty
                to_mean[2] += tz
                camera[16] -= tx
                camera[17] -= ty
                camera[18] -= tz

            # The forward projection once more.
            x, y, z = _camera_point(means, i, poses, c)
            fx, fy, cx, cy = intrinsics[c, 0, 0], intrinsics[c, 1, 1], intrinsics[c, 0, 2], intrinsics[c, 1, 2]
            axes = _axes(quats, scales, i, poses, c)
            u, v = _plane_axes(axes, x, y, z, fx, fy, cx, cy, width, height, frustum_margin, orthographic)
            xx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2] + blur
            xy = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
            yy = v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + blur
            determinant = xx * yy - xy * xy
            a, b, d = yy / determinant, -xy / determinant, xx / determinant

            # Centre and conic.
            to_x = -(a * g[1] + b * g[2])
            to_y = -(b * g[1] + d * g[2])
            offset_gradients[c, i, 0] = to_x
            offset_gradients[c, i, 1] = to_y
            # dL/dcovariance = -conic G conic, G = [[xx / 2, xy / 2], [xy / 2, yy / 2]] in the moments
            p0, p1 = 0.5 * (g[3] * a + g[4] * b), 0.5 * (g[3] * b + g[4] * d)
            q0, q1 = 0.5 * (g[4] * a + g[5] * b), 0.5 * (g[4] * b + g[5] * d)
            h_xx, h_xy, h_yy = -(a * p0 + b * q0), -(a * p1 + b * q1), -(b * p1 + d * q1)
            du0, du1, du2 = (
                2.0 * (h_xx * u[0] + h_xy * v[0]),
                2.0 * (h_xx * u[1] + h_xy * v[1]),
                2.0 * (h_xx * u[2] + h_xy * v[2]),
            )
            dv0, dv1, dv2 = (
                2.0 * (h_yy * v[0] + h_xy * u[0]),
                2.0 * (h_yy * v[1] + h_xy * u[1]),
                2.0 * (h_yy * v[2] + h_xy * u[2]),
            )

            # Through the camera model to the camera-space point (px, py, pz) and axes (rows r0, r1, r2).
            if orthographic:
                px, py, pz = fx * to_x, fy * to_y, g[9]
                camera[12] += to_x * x + du0 * axes[0] + du1 * axes[1] + du2 * axes[2]
                camera[13] += to_y * y + dv0 * axes[3] + dv1 * axes[4] + dv2 * axes[5]
                r00, r01, r02 = fx * du0, fx * du1, fx * du2
                r10, r11, r12 = fy * dv0, fy * dv1, fy * dv2
                r20 = r21 = r22 = 0.0
            else:
                kx, ky = fx / z, fy / z
                slope_x, free_x = _clamped(x / z, width, fx, cx, frustum_margin)
                slope_y, free_y = _clamped(y / z, height, fy, cy, frustum_margin)
                to_kx = (u[0] * du0 + u[1] * du1 + u[2] * du2) / kx + to_x * x
                to_ky = (v[0] * dv0 + v[1] * dv1 + v[2] * dv2) / ky + to_y * y
                r00, r01, r02 = kx * du0, kx * du1, kx * du2
                r10, r11, r12 = ky * dv0, ky * dv1, ky * dv2
                r20 = -(slope_x * r00 + slope_y * r10)
                r21 = -(slope_x * r01 + slope_y * r11)
                r22 = -(slope_x * r02 + slope_y * r12)
                to_slope_x = -(axes[6] * r00 + axes[7] * r01 + axes[8] * r02)
                to_slope_y = -(axes[6] * r10 + axes[7] * r11 + axes[8] * r12)
                px, py = kx * to_x, ky * to_y
                pz = g[9] - (kx * to_kx + ky * to_ky) / z
                camera[12] += to_kx / z
                camera[13] += to_ky / z
                if free_x:
                    px += to_slope_x / z
                    pz -= to_slope_x * slope_x / z
                else:
                    camera[12] -= to_slope_x * slope_x / fx
                    camera[14] -= to_slope_x / fx
                if free_y:
                    py += to_slope_y / z
                    pz -= to_slope_y * slope_y / z
                else:
                    camera[13] -= to_slope_y * slope_y / fy
                    camera[15] -= to_slope_y / fy
            camera[14] += to_x
            camera[15] += to_y

            # Through the pose: point = R mean + t, axes = R (Q diag(scales)).
            q, w_, x_, y_, z_, norm = _rotation(quats, i)
            s0, s1, s2 = np.float64(scales[i, 0]), np.float64(scales[i, 1]), np.float64(scales[i, 2])
            for row in range(3):
                if row == 0:
                    p, ra, rb, rc = px, r00, r01, r02
                elif row == 1:
                    p, ra, rb, rc = py, r10, r11, r12
                else:
                    p, ra, rb, rc = pz, r20, r21, r22
                camera[9 + row] += p
                for column in range(3):
                    to_mean[column] += poses[c, row, column] * p
                camera[3 * row] += p * means[i, 0] + ra * q[0] * s0 + rb * q[1] * s1 + rc * q[2] * s2
                camera[3 * row + 1] += p * means[i, 1] + ra * q[3] * s0 + rb * q[4] * s1 + rc * q[5] * s2
                camera[3 * row + 2] += p * means[i, 2] + ra * q[6] * s0 + rb * q[7] * s1 + rc * q[8] * s2
            # dL/d(Q diag(s)) = R^T (axes' gradient)
            m00, m01, m02 = _times_transposed(poses, c, 0, r00, r01, r02, r10, r11, r12, r20, r21, r22)
            m10, m11, m12 = _times_transposed(poses, c, 1, r00, r01, r02, r10, r11, r12, r20, r21, r22)
            m20, m21, m22 = _times_transposed(poses, c, 2, r00, r01, r02, r10, r11, r12, r20, r21, r22)
            to_scale[0] += q[0] * m00 + q[3] * m10 + q[6] * m20
            to_scale[1] += q[1] * m01 + q[4] * m11 + q[7] * m21
            to_scale[2] += q[2] * m02 + q[5] * m12 + q[8] * m22
            m00, m10, m20 = m00 * s0, m10 * s0, m20 * s0
            m01, m11, m21 = m01 * s1, m11 * s1, m21 * s1
            m02, m12, m22 = m02 * s2, m12 * s2, m22 * s2
            tw = 2.0 * (z_ * (m10 - m01) + y_ * (m02 - m20) + x_ * (m21 - m12))
            tx = 2.0 * (y_ * (m01 + m10) + z_ * (m02 + m20) + w_ * (m21 - m12) - 2.0 * x_ * (m11 + m22))
            ty = 2.0 * (x_ * (m01 + m10) + z_ * (m12 + m21) + w_ * (m02 - m20) - 2.0 * y_ * (m00 + m22))
            tz = 2.0 * (x_ * (m02 + m20) + y_ * (m12 + m21) + w_ * (m10 - m01) - 2.0 * z_ * (m00 + m11))
            along = tw * w_ + tx * x_ + ty * y_ + tz * z_
            to_quat[0] += (tw - along * w_) / norm
            to_quat[1] += (tx - along * x_) / norm
            to_quat[2] += (ty - along * y_) / norm
            to_quat[3] += (tz - along * z_) / norm
        opacity_gradients[i] = to_opacity
        for k in range(3):
            mean_gradients[i, k] = to_mean[k]
            scale_gradients[i, k] = to_scale[k]
        for k in range(4):
            quat_gradients[i, k] = to_quat[k]
        for k in range(count):
            for channel in range(3):
                sh_gradients[i, k, channel] = to_sh[k, channel]


@kernel
def _camera_point(means, i, poses, c):
    mx, my, mz = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
    return (
        poses[c, 0, 0] * mx + poses[c, 0, 1] * my + poses[c, 0, 2] * mz + poses[c, 0, 3],
        poses[c, 1, 0] * mx + poses[c, 1, 1] * my + poses[c, 1, 2] * mz + poses[c, 1, 3],
        poses[c, 2, 0] * mx + poses[c, 2, 1] * my + poses[c, 2, 2] * mz + poses[c, 2, 3],
    )


@kernel
def _rotation(quats, i):
    """Row-major rotation matrix, the unit quaternion w, x, y, z, and the length it had."""
    w, x, y, z = np.float64(quats[i, 0]), np.float64(quats[i, 1]), np.float64(quats[i, 2]), np.float64(quats[i, 3])
    norm = math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    matrix = (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )
    return matrix, w, x, y, z, norm


@kernel
def _axes(quats, scales, i, poses, c):
    """The splat's scaled axes in camera space, as the columns of a row-major matrix: R Q diag(scales)."""
    q = _rotation(quats, i)[0]
    s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
    a, b, d = poses[c, 0, 0], poses[c, 0, 1], poses[c, 0, 2]
    e, f, g = poses[c, 1, 0], poses[c, 1, 1], poses[c, 1, 2]
    h, k, m = poses[c, 2, 0], poses[c, 2, 1], poses[c, 2, 2]
    return (
        (a * q[0] + b * q[3] + d * q[6]) * s0,
        (a * q[1] + b * q[4] + d * q[7]) * s1,
        (a * q[2] + b * q[5] + d * q[8]) * s2,
        (e * q[0] + f * q[3] + g * q[6]) * s0,
        (e * q[1] + f * q[4] + g * q[7]) * s1,
        (e * q[2] + f * q[5] + g * q[8]) * s2,
        (h * q[0] + k * q[3] + m * q[6]) * s0,
        (h * q[1] + k * q[4] + m * q[7]) * s1,
        (h * q[2] + k * q[5] + m * q[8]) * s2,
    )


@kernel
def _plane_axes(axes, x, y, z, fx, fy, cx, cy, width, height, frustum_margin, orthographic):
    """The picture's x and y as linear functions of the splat's three axes, px: covariance = [u v]^T [u v]."""
    if orthographic:
        return (fx * axes[0], fx * axes[1], fx * axes[2]), (fy * axes[3], fy * axes[4], fy * axes[5])
    kx, ky = fx / z, fy / z
    slope_x = _clamped(x / z, width, fx, cx, frustum_margin)[0]
    slope_y = _clamped(y / z, height, fy, cy, frustum_margin)[0]
    return (
        (
            kx * (axes[0] - slope_x * axes[6]),
            kx * (axes[1] - slope_x * axes[7]),
            kx * (axes[2] - slope_x * axes[8]),
        ),
        (
            ky * (axes[3] - slope_y * axes[6]),
            ky * (axes[4] - slope_y * axes[7]),
            ky * (axes[5] - slope_y * axes[8]),
        ),
    )


@kernel
def _clamped(slope, size, focal, centre, frustum_margin):
    """``slope`` kept inside the widened picture, and whether it was there already."""
    margin = frustum_margin * 0.5 * size / focal
    low, high = -(centre / focal + margin), (size - centre) / focal + margin
    return min(max(slope, low), high), low <= slope <= high


@kernel
def _times_transposed(poses, c, column, r00, r01, r02, r10, r11, r12, r20, r21, r22):
    """One row of R^T times a 3 x 3 matrix."""
    a, b, d = poses[c, 0, column], poses[c, 1, column], poses[c, 2, column]
    return a * r00 + b * r10 + d * r20, a * r01 + b * r11 + d * r21, a * r02 + b * r12 + d * r22


@kernel
def _sh_basis(count, x, y, z, constants, basis):
    basis[0] = constants[0]
    if count > 1:
        basis[1] = -constants[1] * y
        basis[2] = constants[1] * z
        basis[3] = -constants[1] * x
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        basis[4] = constants[2] * x * y
        basis[5] = -constants[2] * y * z
        basis[6] = constants[3] * (2.0 * zz - xx - yy)
        basis[7] = -constants[2] * x * z
        basis[8] = constants[4] * (xx - yy)
        if count > 9:
            basis[9] = -constants[5] * y * (3.0 * xx - yy)
            basis[10] = constants[6] * x * y * z
            basis[11] = -constants[7] * y * (4.0 * zz - xx - yy)
            basis[12] = constants[8] * z * (2.0 * zz - 3.0 * xx - 3.0 * yy)
            basis[13] = -constants[7] * x * (4.0 * zz - xx - yy)
            basis[14] = constants[9] * z * (xx - yy)
            basis[15] = -constants[5] * x * (xx - 3.0 * yy)


@kernel
def _sh_slopes(count, x, y, z, constants, slopes):
    """Derivatives of the basis along x, y, z, from its first degree up."""
    slopes[1:4] = 0.0
    slopes[1, 1] = -constants[1]
    slopes[2, 2] = constants[1]
    slopes[3, 0] = -constants[1]
    if count > 4:
        a, b, d = constants[2], constants[3], constants[4]
        _set(slopes, 4, a * y, a * x, 0.0)
        _set(slopes, 5, 0.0, -a * z, -a * y)
        _set(slopes, 6, -2.0 * b * x, -2.0 * b * y, 4.0 * b * z)
        _set(slopes, 7, -a * z, 0.0, -a * x)
        _set(slopes, 8, 2.0 * d * x, -2.0 * d * y, 0.0)
    if count > 9:
        xx, yy, zz = x * x, y * y, z * z
        a, b, d, e, f = constants[5], constants[6], constants[7], constants[8], constants[9]
        _set(slopes, 9, -6.0 * a * x * y, -3.0 * a * (xx - yy), 0.0)
        _set(slopes, 10, b * y * z, b * x * z, b * x * y)
        _set(slopes, 11, 2.0 * d * x * y, -d * (4.0 * zz - xx - 3.0 * yy), -8.0 * d * y * z)
        _set(slopes, 12, -6.0 * e * x * z, -6.0 * e * y * z, e * (6.0 * zz - 3.0 * xx - 3.0 * yy))
        _set(slopes, 13, -d * (4.0 * zz - 3.0 * xx - yy), 2.0 * d * x * y, -8.0 * d * x * z)
        _set(slopes, 14, 2.0 * f * x * z, -2.0 * f * y * z, f * (xx - yy))
        _set(slopes, 15, -3.0 * a * (xx - yy), 6.0 * a * x * y, 0.0)


@kernel
def _set(rows, k, x, y, z):
    rows[k, 0] = x
    rows[k, 1] = y
    rows[k, 2] = z
