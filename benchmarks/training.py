"""Where the time of a training step goes: milliseconds per part beside their floors, and steps a second.

    python -m benchmarks.training [--prior starter] [--preset draft] [--steps 20]
    python -m benchmarks.training --prior sd15 --preset paper --splats 100000   # needs a GPU
    python -m benchmarks.training --toy                                         # the same script in seconds

Two runs: one without any timer inside the step, for whole steps, and one in which the device is waited for before and
after each part. What is in none of the parts (random numbers, reports) is the difference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from headstudio.avatar.density import DensityControl
from headstudio.device import choose_device
from headstudio.guidance.prior import Prior
from headstudio.heads.default_head import default_head
from headstudio.heads.head import Head
from headstudio.train import loop, repaint
from headstudio.train.progress import Progress, SilentReporter
from headstudio.train.scenes import SceneSampler
from headstudio.train.settings import PRESETS, TrainSettings, get_preset
from headstudio.train.state import State

from benchmarks.common import machine, write_results
from benchmarks.floors import Ceilings, synchronise, work
from benchmarks.sd15 import SD15, TOY, Sizes, random_prior

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Parts:
    """Seconds that each part of a step took, and what the networks evaluated."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.rows: dict[str, int] = defaultdict(int)
        self._pictures_done: float | None = None

    def timed(self, name: str, function: Callable) -> Callable:
        def call(*arguments, **options):
            began = _now()
            result = function(*arguments, **options)
            self.seconds[name] += _now() - began
            return result

        return call

    def rasterise(self, function: Callable) -> Callable:
        """Notes in the backward pass when the gradient has reached the pictures: there the render's own begins."""
        timed = self.timed("render", function)

        def call(*arguments, **options):
            render = timed(*arguments, **options)
            if render.colour.requires_grad:
                render.colour.register_hook(self._mark)
            return render

        return call

    def _mark(self, gradient) -> None:
        self._pictures_done = _now()

    def backward(self, function: Callable) -> Callable:
        """``torch.autograd.backward``, which ``Tensor.backward`` calls: of pictures, or of Eq. 5 and the head."""

        def call(*arguments, **options):
            self._pictures_done, began = None, _now()
            function(*arguments, **options)
            ended = _now()
            if self._pictures_done is None:
                self.seconds["Eq. 5 and head, backward"] += ended - began
            else:
                self.seconds["autoencoder, backward"] += self._pictures_done - began
                self.seconds["render, backward"] += ended - self._pictures_done

        return call

    def unet(self, function: Callable) -> Callable:
        """``Prior._evaluate``, less what ``Prior._residuals`` takes of it."""

        def call(latents, t, text, condition, scales):
            before, began = self.seconds["controlnet"], _now()
            result = function(latents, t, text, condition, scales)
            self.seconds["unet"] += _now() - began - (self.seconds["controlnet"] - before)
            self.rows["unet"] += len(scales)
            self.rows["controlnet"] += sum(scale != 0 for scale in scales)
            return result

        return call


def _now() -> float:
    synchronise()
    return time.perf_counter()


@contextmanager
def parts_of(prior: Prior) -> Iterator[Parts]:
    """Times the parts of every step inside; undone at the end."""
    parts = Parts()

    def timed(name: str) -> Callable[[Callable], Callable]:
        return lambda function: parts.timed(name, function)

    wrappers: list[tuple[object, str, Callable[[Callable], Callable]]] = [
        (SceneSampler, "__call__", timed("scene")),
        (Head, "__call__", timed("head")),
        (loop, "triangle_frames", timed("frames and Eq. 5")),
        (loop, "bind", timed("frames and Eq. 5")),
        (loop, "rasterise", parts.rasterise),
        (loop, "condition_image", timed("landmark map")),
        (repaint, "paint", timed("repainting")),
        (prior, "encode_images", timed("autoencoder")),
        (prior, "_residuals", timed("controlnet")),
        (prior, "_evaluate", parts.unet),
        (torch.autograd, "backward", parts.backward),
        (loop, "regularisation", timed("regularisation")),
        (DensityControl, "observe", timed("density")),
        (State, "control_density", timed("density")),
        (State, "gradients_are_finite", timed("finite?")),
        (torch.optim.Adam, "step", timed("Adam")),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in wrappers]
    for place, name, wrapper in wrappers:
        setattr(place, name, wrapper(getattr(place, name)))
    try:
        yield parts
    finally:
        for place, name, function in before:
            setattr(place, name, function)


class Marks(SilentReporter):
    """When each step ended; calls ``when_warm`` after the steps that do not count."""

    def __init__(self, warm_up: int, when_warm: Callable[[], None] = lambda: None):
        self.warm_up, self.when_warm = warm_up, when_warm
        self.times: list[float] = []

    def progress(self, progress: Progress) -> None:
        self.times.append(_now())
        self.splats = progress.splats
        if progress.step == self.warm_up:
            self.when_warm()


def measure(settings: TrainSettings, prior: Prior, steps: int, sizes: Sizes | None = None, warm_up: int = 3) -> dict:
    """Milliseconds per step: the median of whole steps, and the mean of each part; with floors if ``sizes`` says what
    the prior is made of."""
    arrays = default_head()
    settings = replace(settings, steps=warm_up + steps, snapshot_every=0, checkpoint_every=0)

    def run(marks: Marks) -> Marks:
        loop.train(settings, arrays, prior, "an orc", reporter=marks, device=prior.device)
        return marks

    if prior.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    marks = run(Marks(warm_up))
    peak = _peak_gib(prior.device)
    gaps = [1000 * (b - a) for a, b in itertools.pairwise(marks.times[warm_up - 1 :])]
    with parts_of(prior) as parts:
        timed = run(Marks(warm_up, parts.clear))
    share = sum(parts.seconds.values()) / (timed.times[-1] - timed.times[warm_up - 1])
    taken = {name: 1000 * seconds / steps for name, seconds in parts.seconds.items()}
    rows = {name: parts.rows[name] / steps for name in ("unet", "controlnet")}
    result = {
        "ms_per_step": round(statistics.median(gaps), 1),
        "steps_per_second": round(1000 / statistics.median(gaps), 2),
        "hours_for_10000_steps": round(statistics.median(gaps) * 10_000 / 3.6e6, 2),
        "peak_memory_gib": round(peak, 2),
        "splats": marks.splats,
        "views": settings.views,
        "render_size": settings.render_size,
        "rows_per_step": rows,
        "share_in_parts": round(share, 3),  # of the steps in which the parts were timed
    }
    table = {name: {"ms": round(ms, 4)} for name, ms in sorted(taken.items(), key=lambda item: -item[1])}
    if sizes is not None:
        ceilings = Ceilings.measure(prior.device, prior.dtype)
        result["ceilings"] = {"tflops": round(ceilings.flops / 1e12, 3), "gb_per_s": round(ceilings.bytes / 1e9, 1)}
        amounts = work(sizes, prior, Head(arrays), settings, marks.splats, rows)
        for name, (flops, bytes_) in amounts.items():
            if name in table:
                floor = {"floor_ms": ceilings.floor_ms(flops, bytes_), "gflop": flops / 1e9, "mb": bytes_ / 1e6}
                table[name] |= {key: round(value, 3) for key, value in floor.items()}
    return {**result, "parts": table}


def _peak_gib(device: torch.device) -> float:
    """Of the GPU's memory what torch allocated; on the CPU the whole process's, since it started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--prior", default="starter", help="the built-in one, a folder, a hub id, or sd15: random weights"
    )
    parser.add_argument("--preset", default="draft", choices=sorted(PRESETS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--splats", type=int, default=0, help="start with this many; default the preset's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=DTYPES, help="of the networks; default float16 on CUDA, else float32")
    parser.add_argument("--views-at-once", type=int, help="pictures per evaluation of the networks; default all")
    parser.add_argument("--compile-backend", help="of torch.compile, for the frozen networks; default none")
    parser.add_argument("--toy", action="store_true", help="tiny networks and pictures: does the script work?")
    parser.add_argument("--out", type=Path, help="the JSON file; default benchmarks/results/training-MACHINE.json")
    arguments = parser.parse_args()

    description = machine()
    device = choose_device(arguments.device)
    settings = get_preset("paper" if arguments.toy else arguments.preset)
    if arguments.splats:
        settings = replace(settings, splats=arguments.splats)
    dtype = DTYPES[arguments.dtype or ("float16" if device.startswith("cuda") else "float32")]
    options = {"views_at_once": arguments.views_at_once, "compile_backend": arguments.compile_backend}
    sizes = TOY if arguments.toy else SD15 if arguments.prior == "sd15" else None
    if arguments.toy:
        settings = replace(settings, views=2, render_size=64, splats=2000)
        arguments.steps = 2
    if sizes is None:
        prior = Prior.load(arguments.prior, device=device, dtype=dtype, **options)
    else:
        prior = random_prior(sizes, device, dtype, **options)
    result = {
        "device": device,
        "preset": "toy" if arguments.toy else arguments.preset,
        "prior": prior.name,
        "dtype": str(dtype).removeprefix("torch."),
        **options,
        **measure(settings, prior, arguments.steps, sizes, warm_up=1 if arguments.toy else 3),
    }
    print(json.dumps(result, indent=2))
    print(write_results("training", result, description, arguments.out))


if __name__ == "__main__":
    main()
