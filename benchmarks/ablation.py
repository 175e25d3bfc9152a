"""What each part of the method is worth: one change at a time, on the same prompts, with fidelity's measures.

    python -m benchmarks.ablation [--limit 10] [--every 10] [--variants repaint sds] [--out out/ablation]

A folder per variant and prompt; what is finished is not made again. Prints a table, writes it as JSON to ``results/``,
and leaves a sheet per variant in its folder.
"""

from __future__ import annotations

import argparse

from benchmarks.common import machine, write_results
from benchmarks.fidelity import add_arguments, chosen_prompts, result_of, summary, write_sheet

# Distillation's gradients are noisier than painted pictures: it has the rates and penalties that suited it best
_DISTIL = (
    "guidance_scale=7.5",
    "control_scale=1.5",
    "initial_opacity=0.6",
    "lr_offset=1e-2",
    "lr_scale=5e-3",
    "lr_opacity=5e-2",
    "position_weight=0.3",
    "scale_weight=3.0",
    "hold_eyes_and_mouth=false",
    "background=random",
)
# Each on top of the preset, whose strategy is repaint
VARIANTS: dict[str, tuple[str, ...]] = {
    "repaint": ("strategy=repaint",),
    "sds": ("strategy=sds", *_DISTIL),
    "nfsd": ("strategy=nfsd", *_DISTIL),
    "no animation": ("strategy=repaint", "neutral_share=1.0"),
    "no landmark control": ("strategy=repaint", "control_scale=0"),
    "no adaptive regularisation": ("strategy=repaint", "position_weight=0", "scale_weight=0"),
    "no super-dense start": ("strategy=repaint", "splats=2500"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, limit=10, out="out/ablation")
    parser.set_defaults(every=10)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    arguments = parser.parse_args()
    description = machine()
    prompts, table = chosen_prompts(arguments), {}
    for name in arguments.variants:
        folder = arguments.out / name.replace(" ", "-")
        settings = [*VARIANTS[name], *arguments.setting]
        folders = {folder / f"{number:03d}": prompt for number, prompt in prompts.items()}
        results = [result_of(path, prompt, settings, arguments) for path, prompt in folders.items()]
        table[name] = {"settings": settings, **summary(results)}
        write_sheet(folder / "sheet.png", list(folders))
    print_variants(table)
    about = {"preset": arguments.preset, "steps": arguments.steps, "prompts": list(prompts.values())}
    print(write_results("ablation", {**about, "variants": table}, description))


def print_variants(table: dict[str, dict]) -> None:
    measures = list(next(iter(table.values()))["passing"])
    print("attributes right, then the share of avatars that pass: " + ", ".join(measures))
    for name, row in table.items():
        share = "-" if row["share"] is None else f"{row['share']:.1%}"
        passing = " ".join(f"{row['passing'][measure]:7.0%}" for measure in measures)
        print(f"{name:28} {share:>7} {passing}   {row['mean_seconds'] or 0:8.1f} s")


if __name__ == "__main__":
    main()
