"""CPU kernels that blend splats into the pixels of a tile, and gradients back.

Each splat visits the rows of the tile that its box covers in one loop over consecutive pixels without branches or
calls, which the compiler turns into vector instructions (16 pixels at a time with AVX-512, 8 with AVX2, 4 with NEON).
That needs: all of a tile's channels in one float32 array at constant distances (PLANE), unsigned indices, selections
instead of ``if``, and an exponential of our own. Forward and backward evaluate a splat's alpha by the same expressions
without fast-math, so that they always agree on which pixels it covers.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import kernel

TILE = 16  # px; rows of a tile are as long as the widest vector
PLANE = TILE * TILE
# After so many splats the forward pass looks whether every pixel of the tile is finished.
BLOCK = 32

_0, _HALF, _1 = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_P = np.uint64(PLANE)
# exp(-x) = 2^k exp(r): ln 2 in two parts, so that k times the first is exact and r keeps all its digits.
_LOG2_E, _LN2_HIGH, _LN2_LOW = (
    np.float32(1.4426950408889634),
    np.float32(0.693359375),
    np.float32(-2.12194440054690583e-4),
)
_E2, _E3, _E4, _E5, _E6, _E7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


@intrinsic
def _float_of_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _sum(typing_context, a, b):
    """Addition whose order the compiler may choose (once, when it compiles), so that a running sum vectorises."""

    def generate(context, builder, signature, arguments):
        return builder.fadd(*arguments, flags=("reassoc",))

    return types.float32(types.float32, types.float32), generate


@kernel
def _exp_of_minus(x):
    """exp(-x) for 0 <= x <= 40, to 2e-7 of its value."""
    k = np.int32(-x * _LOG2_E - _HALF)  # rounds to the nearest, because the conversion truncates towards zero
    whole = np.float32(k)
    r = -x - whole * _LN2_HIGH - whole * _LN2_LOW
    power = _1 + r * (_1 + r * (_E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * (_E6 + r * _E7))))))
    return power * _float_of_bits((k + _BIAS) << _MANTISSA)


@kernel
def blend(
    start,  # tiles[start:stop] are drawn
    stop,
    tiles,  # [C * rows * columns] a permutation
    columns,  # tiles across the picture
    rows,  # tiles down
    width,
    height,
    splats,  # [C * N, SPLAT]
    boxes,  # [C * N, 4]
    entries,  # [P]
    tile_starts,  # [C * rows * columns + 1]
    backgrounds,  # [C, 3]
    alpha_min,  # float32, as the next two
    alpha_max,
    transmittance_min,
    colour,  # [C, H, W, 3] out
    alpha,  # [C, H, W] out
    depth,  # [C, H, W] out
    transmittance,  # [C, H, W] out: 1 - alpha, without its rounding
    last,  # [C, H, W] out: number of the tile's entries up to the last one drawn in the pixel
):
    # planes: column and row in the tile, transmittance, unfinished, red, green, blue, depth, last
    plane = np.empty(9 * PLANE, np.float32)
    for p in range(PLANE):
        plane[p] = np.float32(p % TILE) + _HALF
        plane[PLANE + p] = np.float32(p // TILE) + _HALF
    for t in range(start, stop):
        tile = tiles[t]
        view = tile // (rows * columns)
        top = (tile // columns % rows) * TILE
        left = tile % columns * TILE
        high, wide = min(TILE, height - top), min(TILE, width - left)
        plane[2 * PLANE : 3 * PLANE] = _1
        plane[3 * PLANE :] = _0
        for row in range(high):
            plane[3 * PLANE + row * TILE : 3 * PLANE + row * TILE + wide] = _1
        first, end = tile_starts[tile], tile_starts[tile + 1]
        for k in range(first, end):
            if (k - first) % BLOCK == BLOCK - 1:
                unfinished = _0
                for p in range(3 * PLANE, 4 * PLANE):
                    unfinished = _sum(unfinished, plane[p])
                if unfinished == _0:
                    break
            flat = entries[k]
            _blend_one(
                plane,
                max(boxes[flat, 1] - top, 0) * TILE,
                min(boxes[flat, 3] - top, high) * TILE,
                splats[flat, 0] - np.float32(left),
                splats[flat, 1] - np.float32(top),
                splats[flat, 2],
                splats[flat, 3],
                splats[flat, 4],
                splats[flat, 5],
                splats[flat, 6],
                splats[flat, 7],
                splats[flat, 8],
                splats[flat, 9],
                np.float32(k - first + 1),
                alpha_min,
                alpha_max,
                transmittance_min,
            )
        for row in range(high):
            for column in range(wide):
                p = row * TILE + column
                y, x = top + row, left + column
                through = plane[2 * PLANE + p]
                colour[view, y, x, 0] = plane[4 * PLANE + p] + through * backgrounds[view, 0]
                colour[view, y, x, 1] = plane[5 * PLANE + p] + through * backgrounds[view, 1]
                colour[view, y, x, 2] = plane[6 * PLANE + p] + through * backgrounds[view, 2]
                alpha[view, y, x] = _1 - through
                depth[view, y, x] = plane[7 * PLANE + p]
                transmittance[view, y, x] = through
                last[view, y, x] = np.int32(plane[8 * PLANE + p])


@kernel
def _blend_one(
    plane, start, stop, x, y, xx, xy, yy, opacity, red, green, blue, z, number, alpha_min, alpha_max, transmittance_min
):
    for p in range(np.uint64(start), np.uint64(stop)):
        dx = plane[p] - x
        dy = plane[p + _P] - y
        sigma = _HALF * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        a = min(opacity * _exp_of_minus(min(max(sigma, _0), np.float32(40.0))), alpha_max)
        before = plane[p + np.uint64(2) * _P]
        weight = before * a
        after = before - weight
        unfinished = plane[p + np.uint64(3) * _P]
        covered = (sigma >= _0) & (a >= alpha_min) & (unfinished > _0)
        goes_on = after > transmittance_min
        drawn = covered & goes_on
        weight = weight if drawn else _0
        previous = plane[p + np.uint64(8) * _P]
        plane[p + np.uint64(2) * _P] = before - weight
        plane[p + np.uint64(3) * _P] = _0 if covered & (not goes_on) else unfinished
        plane[p + np.uint64(4) * _P] += weight * red
        plane[p + np.uint64(5) * _P] += weight * green
        plane[p + np.uint64(6) * _P] += weight * blue
        plane[p + np.uint64(7) * _P] += weight * z
        plane[p + np.uint64(8) * _P] = number if drawn else previous


@kernel
def blend_backward(
    start,  # tiles[start:stop] are worked through
    stop,
    tiles,  # [C * rows * columns]
    columns,
    rows,
    width,
    height,
    splats,  # [C * N, SPLAT]
    boxes,  # [C * N, 4]
    entries,  # [P]
    tile_starts,  # [C * rows * columns + 1]
    slots,  # [C * N + 1]
    backgrounds,  # [C, 3]
    alpha_min,
    alpha_max,
    transmittance,  # [C, H, W]
    last,  # [C, H, W]
    colour_gradient,  # [C, H, W, 3] dL/dcolour
    alpha_gradient,  # [C, H, W]
    depth_gradient,  # [C, H, W]
    splat_gradients,  # [P, SPLAT_GRADIENT] out; zero where nothing is written
    background_gradients,  # [C * rows * columns, 3] out
):
    # planes: column and row in the tile, transmittance, last, dL/d red, green, blue, depth, weight, and the part of
    # the loss that the splats behind make
    plane = np.empty(10 * PLANE, np.float32)
    for p in range(PLANE):
        plane[p] = np.float32(p % TILE) + _HALF
        plane[PLANE + p] = np.float32(p // TILE) + _HALF
    for t in range(start, stop):
        tile = tiles[t]
        view = tile // (rows * columns)
        top = (tile // columns % rows) * TILE
        left = tile % columns * TILE
        high, wide = min(TILE, height - top), min(TILE, width - left)
        plane[2 * PLANE :] = _0
        deepest = 0
        background_red = background_green = background_blue = 0.0
        for row in range(high):
            for column in range(wide):
                p = row * TILE + column
                y, x = top + row, left + column
                through = transmittance[view, y, x]
                red, green, blue = (
                    colour_gradient[view, y, x, 0],
                    colour_gradient[view, y, x, 1],
                    colour_gradient[view, y, x, 2],
                )
                plane[2 * PLANE + p] = through
                plane[3 * PLANE + p] = np.float32(last[view, y, x])
                plane[4 * PLANE + p] = red
                plane[5 * PLANE + p] = green
                plane[6 * PLANE + p] = blue
                plane[7 * PLANE + p] = depth_gradient[view, y, x]
                # A splat's weight adds to alpha and takes from the background.
                plane[8 * PLANE + p] = alpha_gradient[view, y, x] - (
                    red * backgrounds[view, 0] + green * backgrounds[view, 1] + blue * backgrounds[view, 2]
                )
                deepest = max(deepest, last[view, y, x])
                background_red += through * red
                background_green += through * green
                background_blue += through * blue
        background_gradients[tile, 0] = background_red
        background_gradients[tile, 1] = background_green
        background_gradients[tile, 2] = background_blue
        first = tile_starts[tile]
        for k in range(first + deepest - 1, first - 1, -1):
            flat = entries[k]
            slot = (
                slots[flat]
                + (top // TILE - boxes[flat, 1] // TILE) * ((boxes[flat, 2] - 1) // TILE - boxes[flat, 0] // TILE + 1)
                + (left // TILE - boxes[flat, 0] // TILE)
            )
            _blend_one_backward(
                plane,
                max(boxes[flat, 1] - top, 0) * TILE,
                min(boxes[flat, 3] - top, high) * TILE,
                splats[flat, 0] - np.float32(left),
                splats[flat, 1] - np.float32(top),
                splats[flat, 2],
                splats[flat, 3],
                splats[flat, 4],
                splats[flat, 5],
                splats[flat, 6],
                splats[flat, 7],
                splats[flat, 8],
                splats[flat, 9],
                np.float32(k - first + 1),
                alpha_min,
                alpha_max,
                splat_gradients[slot],
            )


@kernel
def _blend_one_backward(
    plane, start, stop, x, y, xx, xy, yy, opacity, red, green, blue, z, number, alpha_min, alpha_max, gradient
):
    m, m_x, m_y, m_xx, m_xy, m_yy = _0, _0, _0, _0, _0, _0
    to_red, to_green, to_blue, to_z = _0, _0, _0, _0
    for p in range(np.uint64(start), np.uint64(stop)):
        dx = plane[p] - x
        dy = plane[p + _P] - y
        sigma = _HALF * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        raw = opacity * _exp_of_minus(min(max(sigma, _0), np.float32(40.0)))
        a = min(raw, alpha_max)
        drawn = (sigma >= _0) & (a >= alpha_min) & (number <= plane[p + np.uint64(3) * _P])
        after = plane[p + np.uint64(2) * _P]
        behind = plane[p + np.uint64(9) * _P]
        inverse = _1 / (_1 - a)
        before = after * inverse
        weight = before * a if drawn else _0
        red_gradient = plane[p + np.uint64(4) * _P]
        green_gradient = plane[p + np.uint64(5) * _P]
        blue_gradient = plane[p + np.uint64(6) * _P]
        depth_gradient = plane[p + np.uint64(7) * _P]
        to_weight = (
            plane[p + np.uint64(8) * _P]
            + red * red_gradient
            + green * green_gradient
            + blue * blue_gradient
            + z * depth_gradient
        )
        to_alpha = before * to_weight - behind * inverse
        to_sigma = -a * to_alpha if drawn & (raw <= alpha_max) else _0
        plane[p + np.uint64(2) * _P] = before if drawn else after
        plane[p + np.uint64(9) * _P] = behind + weight * to_weight
        to_sigma_x, to_sigma_y = to_sigma * dx, to_sigma * dy
        m = _sum(m, to_sigma)
        m_x = _sum(m_x, to_sigma_x)
        m_y = _sum(m_y, to_sigma_y)
        m_xx = _sum(m_xx, to_sigma_x * dx)
        m_xy = _sum(m_xy, to_sigma_x * dy)
        m_yy = _sum(m_yy, to_sigma_y * dy)
        to_red = _sum(to_red, weight * red_gradient)
        to_green = _sum(to_green, weight * green_gradient)
        to_blue = _sum(to_blue, weight * blue_gradient)
        to_z = _sum(to_z, weight * depth_gradient)
    gradient[0] = m
    gradient[1] = m_x
    gradient[2] = m_y
    gradient[3] = m_xx
    gradient[4] = m_xy
    gradient[5] = m_yy
    gradient[6] = to_red
    gradient[7] = to_green
    gradient[8] = to_blue
    gradient[9] = to_z
