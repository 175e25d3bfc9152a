"""What every benchmark shares: a description of the machine, fair timing, and the JSON file of results."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from headstudio.avatar.file import Avatar, bake_identity
from headstudio.avatar.splats import SplatArrays
from headstudio.heads.default_head import default_head

RESULTS = Path(__file__).parent / "results"


def machine_kind() -> str:
    """A short name for the kind of machine: the GPU's name, or the processor's architecture and cores."""
    if torch.cuda.is_available():
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    return f"{platform.machine()}-{usable_cores()}-cores".lower()


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine() -> dict:
    """Processor, cores, memory, system, load when asked, GPU, and the versions that matter."""
    description = {
        "kind": machine_kind(),
        "processor": _processor(),
        "cores": usable_cores(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "numpy", "numba", "gsplat", "diffusers")},
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        description["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if hasattr(os, "getloadavg"):
        description["load_before"] = round(os.getloadavg()[0], 2)
    if torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
    return description


def noise_avatar(count: int, coefficients: int = 16) -> Avatar:
    """``count`` small splats of noise, evenly over the default head."""
    head = bake_identity(default_head())
    rng = np.random.default_rng(0)
    rotation = rng.normal(size=(count, 4))
    splats = SplatArrays(
        triangle=rng.integers(0, len(head.triangles), count).astype(np.int32),
        offset=(0.2 * rng.normal(size=(count, 3))).astype(np.float32),
        scale=np.exp(0.3 * rng.normal(size=(count, 3)) - 1.5).astype(np.float32),
        rotation=(rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).astype(np.float32),
        sh=(0.3 * rng.normal(size=(count, coefficients, 3))).astype(np.float32),
        opacity=rng.random(count).astype(np.float32),
    )
    return Avatar(head, splats, {"prompt": "noise"})


def measure(variants: dict[str, Callable[[], None]], repetitions: int, warm_up: bool = True) -> dict[str, dict]:
    """Milliseconds of each variant: median and minimum over ``repetitions`` rounds.

    Every round runs all variants once, so that whatever disturbs the machine disturbs them alike.
    """
    if warm_up:
        for variant in variants.values():
            variant()
    times = {name: [] for name in variants}
    for _ in range(repetitions):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: {"median_ms": _round(median(t)), "min_ms": _round(min(t))} for name, t in times.items()}


def write_results(name: str, results: dict, machine_description: dict, path: Path | None = None) -> Path:
    """``path``, or ``results/NAME-KIND.json``, with the date and the machine beside the results."""
    path = path or RESULTS / f"{name}-{machine_description['kind']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    path.write_text(json.dumps({"date": date, "machine": machine_description, **results}, indent=2) + "\n")
    return path


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _processor() -> str:
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
