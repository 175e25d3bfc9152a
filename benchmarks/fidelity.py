"""How many of the attributes that prompts ask for do the avatars show? Over the development prompts.

    python -m benchmarks.fidelity [--limit 20] [--first 0] [--out out/fidelity] [--steps 480] [--setting NAME=VALUE]

One folder per prompt, which holds its job and its figures: what is finished is not made again, so that a run which was
stopped goes on. ``--measure`` takes the figures anew, of avatars that lie there. Prints a table and writes it as JSON
to ``results/``; a sheet of all avatars, ``sheet.png``, is in the folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from headstudio.avatar.file import load_avatar
from headstudio.evaluate.evaluate import evaluate, training_seconds
from headstudio.export.pictures import Stage, draw, write_png
from headstudio.export.sheets import contact_sheet
from headstudio.job import Job

from benchmarks.common import machine, write_results

PROMPTS = Path(__file__).with_name("development_prompts.txt")
VIEWS = (0.0, 45.0, 180.0)  # azimuths of the sheet, degrees
SIDE = 160  # pixels of each of the sheet's pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, limit=100, out="out/fidelity")
    arguments = parser.parse_args()
    description = machine()
    prompts = chosen_prompts(arguments)
    results = [
        result_of(arguments.out / f"{number:03d}", prompt, arguments.setting, arguments)
        for number, prompt in prompts.items()
    ]
    table = {"preset": arguments.preset, "steps": arguments.steps, "settings": arguments.setting, **summary(results)}
    print_table(table)
    write_sheet(arguments.out / "sheet.png", [arguments.out / f"{number:03d}" for number in prompts])
    print(write_results("fidelity", {**table, "prompts": results}, description))


def add_arguments(parser: argparse.ArgumentParser, limit: int, out: str) -> None:
    parser.add_argument("--first", type=int, default=0, help="row of development_prompts.txt to begin with, from 0")
    parser.add_argument("--limit", type=int, default=limit, help="number of prompts")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th prompt")
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--steps", type=int, help="default: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", default="starter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--setting", metavar="NAME=VALUE", action="append", default=[], help="as headstudio generate's")
    parser.add_argument("--measure", action="store_true", help="measure again what is measured already")


def chosen_prompts(arguments: argparse.Namespace) -> dict[int, str]:
    """Row to prompt, as the arguments say."""
    rows = list(enumerate(PROMPTS.read_text(encoding="utf-8").splitlines()))
    return dict(rows[arguments.first :: arguments.every][: arguments.limit])


def result_of(folder: Path, prompt: str, settings: list[str], arguments: argparse.Namespace) -> dict:
    """The avatar's figures, made and measured where the folder does not hold them yet."""
    kept = folder / "figures.json"
    if kept.exists() and not arguments.measure:
        return json.loads(kept.read_text())
    print(f"== {folder}: {prompt}", flush=True)
    # In a process of its own: what a crash leaves is a job that the next run resumes
    command = [sys.executable, "-m", "headstudio.cli", "generate", prompt, "--out", str(folder), "--resume"]
    options = {"preset": arguments.preset, "seed": arguments.seed, "prior": arguments.prior, "device": arguments.device}
    options |= {"steps": arguments.steps} if arguments.steps else {}
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command += [part for setting in settings for part in ("--setting", setting)]
    if subprocess.run(command).returncode:
        sys.exit(f"The avatar in {folder} was not made; run the same command again to go on.")
    avatar = load_avatar(Job.open(folder).avatar_path)
    figures = {**evaluate(avatar), "seconds": training_seconds(folder)}
    kept.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def summary(results: list[dict]) -> dict:
    """``fidelity``: attribute to [right, said], colours and presence apart, and all of them; ``share``; ``passing``:
    measure to the share of avatars that pass it; means of what is a number."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for result in results:
        for claim in (result["colours"] or {"claims": []})["claims"]:
            _count(counts, f"colour of {claim['part']}", claim["agrees"])
        for claim in (result["attributes"] or {"claims": []})["claims"]:
            _count(counts, f"presence of {claim['attribute']}", claim["agrees"])
    passing = {
        "lids close": [bool(r["lids"] and r["lids"]["passes"]) for r in results],
        "lips close": [bool(r["lips"] and r["lips"]["passes"]) for r in results],
        "open mouth shows dark or teeth": [bool(r["lips"] and r["lips"]["shows"]) for r in results],
        "alpha >= 0.98 from 26 views": [r["coverage"]["least"] >= 0.98 for r in results],
        "no second face": [bool(r["second_face"] and r["second_face"]["passes"]) for r in results],
        "floaters < 0.1 %": [r["floater_share"] < 1e-3 for r in results],
        "steady": [bool(r["steady"] and r["steady"]["passes"]) for r in results],
    }
    seconds = [r["seconds"] for r in results if r["seconds"] is not None]
    right, said = (sum(count[k] for count in counts.values()) for k in (0, 1))
    return {
        "avatars": len(results),
        "fidelity": {name: counts[name] for name in sorted(counts)},
        "right": right,
        "said": said,
        "share": round(right / said, 3) if said else None,
        "passing": {name: round(float(np.mean(passed)), 3) for name, passed in passing.items()},
        "mean_least_alpha": round(float(np.mean([r["coverage"]["least"] for r in results])), 4),
        "mean_seconds": round(float(np.mean(seconds)), 1) if seconds else None,
    }


def print_table(table: dict) -> None:
    for name, (right, said) in table["fidelity"].items():
        print(f"{name:32} {right:4d} of {said:4d}   {right / said:6.1%}")
    print(f"{'all attributes':32} {table['right']:4d} of {table['said']:4d}")
    for name, share in table["passing"].items():
        print(f"{name:32} {share:20.1%}")


def write_sheet(path: Path, folders: list[Path]) -> None:
    """Every avatar from the front, from three quarters and from behind, over its prompt."""
    pictures = {}
    for folder in folders:
        job = Job.open(folder)
        stage = Stage(load_avatar(job.avatar_path))
        gaussians = stage.pose()
        views = [draw(gaussians, stage.camera(azimuth, SIDE), samples=2) for azimuth in VIEWS]
        pictures[f"{folder.name} {job.request.prompt}".encode("ascii", "replace").decode()] = np.hstack(views)
    if pictures:
        write_png(path, contact_sheet(pictures, columns=min(4, len(pictures))))


def _count(counts: dict[str, list[int]], name: str, agrees: bool) -> None:
    counts[name][0] += bool(agrees)
    counts[name][1] += 1


if __name__ == "__main__":
    main()
