"""CPU kernel that lists, for every tile of one view, the splats that touch it, front to back."""

from __future__ import annotations

import numpy as np

from .jit import kernel


@kernel
def sort_into_tiles(
    view,
    n,
    tile,  # px
    columns,  # tiles across the picture
    rows,  # tiles down
    splats,  # [C * N, SPLAT]; the last column is the depth, > 0
    boxes,  # [C * N, 4]
    tiles,  # [C * N]
    slots,  # [C * N + 1] running sum of tiles
    entries,  # [P] out: splats by tile, then depth, then index
    tile_starts,  # [C * rows * columns + 1] out: where each tile's entries begin
):
    first = view * n
    order = np.empty(n, np.int32)
    keys = np.empty(n, np.uint32)
    depths = splats[:, splats.shape[1] - 1]
    count = 0
    for flat in range(first, first + n):
        if tiles[flat] > 0:
            order[count] = flat
            keys[count] = _ascending(depths[flat])
            count += 1
    order = _radix_sort(keys[:count], order[:count])

    # A stable counting sort by tile keeps the order by depth inside each.
    base = view * rows * columns
    heads = np.zeros(rows * columns + 1, np.int64)
    for k in range(count):
        flat = order[k]
        for row in range(boxes[flat, 1] // tile, (boxes[flat, 3] - 1) // tile + 1):
            for column in range(boxes[flat, 0] // tile, (boxes[flat, 2] - 1) // tile + 1):
                heads[row * columns + column + 1] += 1
    heads[0] = slots[first]
    for t in range(rows * columns):
        heads[t + 1] += heads[t]
        tile_starts[base + t] = heads[t]
    tile_starts[base + rows * columns] = heads[rows * columns]
    for k in range(count):
        flat = order[k]
        for row in range(boxes[flat, 1] // tile, (boxes[flat, 3] - 1) // tile + 1):
            for column in range(boxes[flat, 0] // tile, (boxes[flat, 2] - 1) // tile + 1):
                t = row * columns + column
                entries[heads[t]] = flat
                heads[t] += 1


@kernel
def _ascending(depth):
    """Bits of a float32 as an unsigned number that sorts like it."""
    bits = np.float32(depth).view(np.uint32)
    return ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)


@kernel
def _radix_sort(keys, values):
    """``values`` stably sorted by ``keys``, 11 bits at a time."""
    count = len(keys)
    other_keys, other_values = np.empty_like(keys), np.empty_like(values)
    heads = np.empty(2048, np.int64)
    for shift in (0, 11, 22):
        heads[:] = 0
        for k in range(count):
            heads[(keys[k] >> np.uint32(shift)) & np.uint32(2047)] += 1
        total = 0
        for digit in range(2048):
            size = heads[digit]
            heads[digit] = total
            total += size
        for k in range(count):
            digit = (keys[k] >> np.uint32(shift)) & np.uint32(2047)
            other_keys[heads[digit]] = keys[k]
            other_values[heads[digit]] = values[k]
            heads[digit] += 1
        keys, other_keys = other_keys, keys
        values, other_values = other_values, values
    return values
