"""The CPU rasteriser against the plain torch definition, against itself on one thread, and beside torch.

    python -m benchmarks.rasteriser            # about three minutes on two idle cores
    python -m benchmarks.rasteriser --small    # seconds: 10,000 Gaussians at 128 px, nothing is written

The scene is a shell of the size of a head, every splat about 1.4 times as wide as its distance to the next. "torch" is
the definition at the best of several chunk sizes, on all threads. Ratios are of minima: what the machine can do.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from headstudio.camera import Camera, orbit
from headstudio.gaussians import Gaussians
from headstudio.rasterise import rasterise, reference

from benchmarks.common import machine, measure, usable_cores, write_results

FIELDS = ("means", "quats", "scales", "opacities", "sh")
CHUNKS = (8, 16, 32)  # px, tried for the torch definition


def shell(n: int) -> Gaussians:
    """``n`` leaves on a sphere of radius 0.35 m, SH degree 0."""
    g = torch.Generator().manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    spacing = math.sqrt(4 * math.pi * 0.35**2 / n)
    tensors = {
        "means": 0.35 * normal * (0.95 + 0.05 * torch.rand(n, 1, generator=g)),
        "quats": torch.randn(n, 4, generator=g),
        "scales": 1.4 * spacing * torch.exp(0.4 * torch.randn(n, 3, generator=g)),
        "opacities": torch.sigmoid(torch.randn(n, generator=g)),
        "sh": 0.5 * torch.randn(n, 1, 3, generator=g),
    }
    return Gaussians(**{name: tensor.requires_grad_() for name, tensor in tensors.items()})


def view(size: int, views: int = 1) -> Camera:
    return orbit(30.0 + torch.arange(views) * (360.0 / views), 10.0, 1.6, 40.0, size)


def draw(gaussians: Gaussians, camera: Camera, backward: bool, threads: int) -> None:
    """The CPU back end."""
    torch.set_num_threads(threads)
    with torch.set_grad_enabled(backward):
        colour = rasterise(gaussians, camera, backend="numba").colour
    if backward:
        torch.autograd.grad(colour.sum(), [getattr(gaussians, f) for f in FIELDS])


def draw_by_torch(gaussians: Gaussians, camera: Camera, backward: bool, threads: int, chunk: int) -> None:
    """The definition."""
    torch.set_num_threads(threads)
    tensors = [getattr(gaussians, f) for f in FIELDS]
    size = (camera.width, camera.height)
    with torch.set_grad_enabled(backward):
        colour = reference.render(
            *tensors, camera.world_to_camera, camera.intrinsics, torch.zeros(1, 3), None, *size, camera.near, False,
            chunk=chunk,
        )[0]  # fmt: skip
    if backward:
        torch.autograd.grad(colour.sum(), tensors)


def compare(n: int, size: int, threads: int, repetitions: int, slow_repetitions: int) -> dict:
    """One scene: forward, and forward + backward."""
    gaussians, camera = shell(n), view(size)

    def numba(backward: bool) -> dict[str, Callable[[], None]]:
        return {f"numba_{t}_threads": partial(draw, gaussians, camera, backward, t) for t in sorted({1, threads})}

    def definition(backward: bool, chunk: int) -> Callable[[], None]:
        return partial(draw_by_torch, gaussians, camera, backward, threads, chunk)

    # One round finds the best chunk size; forward + backward decides.
    tried = measure({c: definition(True, c) for c in CHUNKS}, 1, warm_up=False)
    chunk = min(tried, key=lambda c: tried[c]["min_ms"])
    result = {
        "gaussians": n,
        "pixels": size,
        "torch_chunk": chunk,
        "torch_chunks_tried_ms": {c: times["min_ms"] for c, times in tried.items()},
    }
    best = f"numba_{threads}_threads"
    for name, backward in (("forward", False), ("forward_backward", True)):
        times = measure(numba(backward), repetitions)
        times |= measure({"torch": definition(backward, chunk)}, slow_repetitions, warm_up=False)
        result[name] = times | {
            "faster_than_torch": round(times["torch"]["min_ms"] / times[best]["min_ms"], 1),
            "faster_than_one_thread": round(times["numba_1_threads"]["min_ms"] / times[best]["min_ms"], 2),
        }
    print(json.dumps(result), flush=True)
    return result


def training_step(n: int, views: int, threads: int, repetitions: int) -> dict:
    """What training does: several small pictures at once, forward + backward."""
    gaussians, camera = shell(n), view(128, views)
    variants = {f"numba_{t}_threads": partial(draw, gaussians, camera, True, t) for t in sorted({1, threads})}
    result = {"gaussians": n, "pixels": 128, "views": views, "forward_backward": measure(variants, repetitions)}
    print(json.dumps(result), flush=True)
    return result


def beside_torch(threads: int, repetitions: int) -> dict:
    """Rasterising and torch work in turns, as in training: does either suffer from the other's threads?

    ``ratio`` is the time of both in turns over the sum of their times alone; 1 means no disturbance.
    """
    gaussians, camera = shell(20_000), view(128, 4)
    a = torch.randn(600, 600)

    def torch_work() -> None:
        x = a
        for _ in range(4):
            x = torch.tanh(x @ a * 0.01) + 0.1

    torch.set_num_threads(threads)

    def raster() -> None:
        draw(gaussians, camera, True, threads)

    def both() -> None:
        raster()
        torch_work()

    times = _alone_then_in_turns(raster, torch_work, both, repetitions)
    print(json.dumps({"beside_torch": times}), flush=True)
    return times


def _alone_then_in_turns(kernels, torch_work, both, repetitions: int) -> dict:
    times = {}
    for name, work in (("kernels", kernels), ("torch", torch_work), ("in_turns", both)):
        times |= measure({name: work}, repetitions)
    for figure in ("median", "min"):
        key = f"{figure}_ms"
        alone = times["kernels"][key] + times["torch"][key]
        times[f"{figure}_ratio"] = round(times["in_turns"][key] / alone, 2)
    return times


def pools(repetitions: int) -> dict:
    """The same made-up kernel in turns with torch, on our threads and on numba's two pools, each in a process of its
    own because a process can have one numba pool."""
    results = {}
    for layer in ("ours", "omp", "workqueue"):
        command = [sys.executable, "-m", "benchmarks.rasteriser", "--pool", layer, "--repetitions", str(repetitions)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        results[layer] = json.loads(process.stdout) if process.returncode == 0 else {"failed": process.stderr[-300:]}
        print(json.dumps({layer: results[layer]}), flush=True)
    return results


def one_pool(layer: str, repetitions: int) -> dict:
    import numba
    import numpy as np
    from headstudio.rasterise import workers

    if layer != "ours":
        numba.config.THREADING_LAYER = layer

    @numba.njit(nogil=True)
    def piece(k, out):
        total = 0.0
        for i in range(60_000):
            total += (i * k) % 7 * 1e-3 + total * 1e-9
        out[k] = total

    @numba.njit(parallel=True, nogil=True)
    def all_pieces(out):
        for k in numba.prange(len(out)):
            piece(k, out)

    out = np.zeros(64)
    a = torch.randn(600, 600)

    def kernels() -> None:
        if layer == "ours":
            workers.run(piece, [(k, out) for k in range(len(out))])
        else:
            all_pieces(out)

    def torch_work() -> None:
        x = a
        for _ in range(4):
            x = torch.tanh(x @ a * 0.01) + 0.1

    def both() -> None:
        kernels()
        torch_work()

    return _alone_then_in_turns(kernels, torch_work, both, repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="10,000 Gaussians at 128 px only; write nothing")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--pool", choices=("ours", "omp", "workqueue"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = usable_cores()
    if options.pool:
        torch.set_num_threads(threads)
        print(json.dumps(one_pool(options.pool, options.repetitions)))
        return
    description = machine()
    start = time.perf_counter()
    draw(shell(100), view(16), True, threads)
    results = {"compile_or_load_kernels_s": round(time.perf_counter() - start, 2), "threads": threads}
    sizes = [(10_000, 128)] if options.small else [(n, s) for n in (10_000, 100_000) for s in (128, 256, 512)]
    slow_repetitions = 1 if options.small else 2
    results["cases"] = [compare(n, size, threads, options.repetitions, slow_repetitions) for n, size in sizes]
    results["training_step"] = [
        training_step(n, views, threads, options.repetitions) for n, views in ((10_000, 4), (20_000, 8))
    ]
    results["beside_torch"] = beside_torch(threads, 3 * options.repetitions)
    if not options.small:
        results["pools_beside_torch"] = pools(3 * options.repetitions)
        results["seconds"] = round(time.perf_counter() - start)
        print(write_results("rasteriser", results, description))


if __name__ == "__main__":
    main()
