"""Where the time of a training step goes: milliseconds per part, and of whole steps, on this machine.

    python -m benchmarks.training [--prior starter] [--preset draft] [--steps 20]

Tensor.backward and autograd.backward hold the backward passes of all that was drawn and posed; the other parts are
forward passes. What is in none of them (random numbers, reports) is the difference to the whole.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from headstudio.guidance.prior import Prior
from headstudio.heads.default_head import default_head
from headstudio.heads.head import Head
from headstudio.train import loop, repaint
from headstudio.train.progress import Progress, SilentReporter
from headstudio.train.scenes import SceneSampler
from headstudio.train.settings import PRESETS, TrainSettings, get_preset

from benchmarks.common import machine, write_results


@contextmanager
def timed(places: list[tuple[object, str]]) -> Iterator[dict[str, list[float]]]:
    """Wraps functions so that every call notes its duration in seconds; undone at the end. Parts may nest."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def wrap(name: str, function: Callable) -> Callable:
        def call(*arguments, **options):
            began = time.perf_counter()
            result = function(*arguments, **options)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
            return result

        return call

    before = [(place, name, getattr(place, name)) for place, name in places]
    for place, name, function in before:
        setattr(place, name, wrap(f"{getattr(place, '__name__', type(place).__name__)}.{name}", function))
    try:
        yield seconds
    finally:
        for place, name, function in before:
            setattr(place, name, function)


def measure(settings: TrainSettings, prior: Prior, steps: int, warm_up: int = 3) -> dict:
    """Milliseconds per step: the median of whole steps, and the mean of what each part takes."""

    class Notes(SilentReporter):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def progress(self, progress: Progress) -> None:
            self.marks.append(time.perf_counter())
            self.splats = progress.splats
            if progress.step == warm_up:
                seconds.clear()

    notes = Notes()
    places = [
        (SceneSampler, "__call__"),
        (Head, "__call__"),
        (loop, "triangle_frames"),
        (loop, "bind"),
        (loop, "rasterise"),
        (loop, "condition_image"),
        (repaint, "paint"),
        (prior, "encode_images"),
        (prior, "predict_noise"),
        (torch.Tensor, "backward"),
        (torch.autograd, "backward"),
        (loop, "regularisation"),
        (torch.optim.Adam, "step"),
    ]
    settings = replace(settings, steps=warm_up + steps, snapshot_every=0, checkpoint_every=0)
    with timed(places) as seconds:
        loop.train(settings, default_head(), prior, "an orc", reporter=notes, device=prior.device)
        parts = {name: round(1000 * sum(times) / steps, 2) for name, times in seconds.items()}
    gaps = [1000 * (b - a) for a, b in itertools.pairwise(notes.marks[warm_up - 1 :])]
    return {
        "ms_per_step": round(statistics.median(gaps), 1),
        "ms_by_part": dict(sorted(parts.items(), key=lambda item: -item[1])),
        "splats": notes.splats,
        "views": settings.views,
        "render_size": settings.render_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="starter", help="the built-in one, a folder, or a hub id")
    parser.add_argument("--preset", default="draft", choices=sorted(PRESETS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    prior = Prior.load(arguments.prior, device=arguments.device)
    description = machine()
    result = {
        "device": arguments.device,
        "preset": arguments.preset,
        "prior": prior.name,
        **measure(get_preset(arguments.preset), prior, arguments.steps),
    }
    print(json.dumps(result, indent=2))
    print(write_results("training", result, description))


if __name__ == "__main__":
    main()
