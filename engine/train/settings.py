"""Everything that a training run can be told, and the three presets.

The string under each field is its documentation; ``settings_help`` hands the strings to the command line.
A time in the run is a fraction of its steps, so that a short run keeps the schedule of a long one.
Standard library only, because Blender's half offers the presets too.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

from ..errors import UserError


@dataclass(frozen=True)
class CameraRanges:
    """Each pair is (lowest, highest); the defaults are the paper's.

    Raises ``UserError`` for a pair that is not ordered, a distance or field of view that is no camera's, or an
    elevation at a pole, where "up" loses its meaning.
    """

    distance: tuple[float, float] = (1.5, 2.0)  # in the paper's unit, see HeadArrays.unit
    fov_y: tuple[float, float] = (40.0, 70.0)  # degrees, vertical
    elevation: tuple[float, float] = (-30.0, 30.0)  # degrees, positive looks down from above
    azimuth: tuple[float, float] = (-180.0, 180.0)  # degrees, 0 sees the face, +90 the subject's left side
    focus: float = 1.0  # above 1: more cameras near the middle of the azimuths, that is before the face

    def __post_init__(self) -> None:
        limits = {
            "distance": (1e-3, 1e3),
            "fov_y": (1.0, 170.0),
            "elevation": (-89.0, 89.0),
            "azimuth": (-360.0, 360.0),
        }
        for name, (lowest, highest) in limits.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise UserError(
                    f"The camera range {name} = ({low:g}, {high:g}) must be ordered and lie within "
                    f"{lowest:g} to {highest:g}."
                )
        if not 0.1 <= self.focus <= 10:
            raise UserError(f"The camera range focus = {self.focus:g} must lie within 0.1 to 10.")


@dataclass(frozen=True)
class TrainSettings:
    """One run. The defaults are the paper's numbers (Sec. 4.3), and its published code's where the paper is silent.

    Raises ``UserError``, which names the field, for a number that makes no sense.
    """

    steps: int = 10_000
    """Training steps."""
    views: int = 8
    """Pictures per step. All of a step's pictures share one expression and one pose."""
    close_ups: int = 0
    """How many of a step's pictures show the face alone, as through a longer lens. Not in the paper. With strategy
    repaint from the second round on."""
    render_size: int = 1024
    """Side of the rendered pictures in pixels. The prior sees them scaled to its own size."""

    splats_per_triangle: int = 10
    """Splats that each triangle of the head starts with (the paper's K)."""
    splats: int = 0
    """Above 0: start with this many splats, spread evenly over the head's surface, whatever its triangles."""
    initial_opacity: float = 0.1
    """Opacity of every splat at the start, between 0 and 1."""

    lr_offset: float = 5e-5
    """Learning rate of the splats' offsets, in units of their triangle's size."""
    lr_scale: float = 1e-3
    """Learning rate of the splats' sizes (of their logarithm)."""
    lr_rotation: float = 1e-2
    """Learning rate of the splats' rotations (quaternions)."""
    lr_colour: float = 1.25e-2
    """Learning rate of the splats' colours."""
    lr_opacity: float = 1e-2
    """Learning rate of the splats' opacities (before the sigmoid)."""
    lr_shape: float = 1e-3
    """Learning rate of the head's own shape (identity coefficients)."""
    beta1: float = 0.9
    """Adam's decay of the mean gradient."""
    beta2: float = 0.99
    """Adam's decay of the mean squared gradient."""
    final_lr: float = 1.0
    """Every learning rate falls along a cosine to this share of itself at the end of the run; 1 keeps it."""
    shape_freeze: float = 0.8
    """Fraction of the run after which the head's shape no longer changes."""

    strategy: Literal["nfsd", "sds", "repaint"] = "nfsd"
    """How the prior teaches: nfsd (noise-free score distillation, the paper's Eq. 7), sds (Eq. 6), or repaint (the
    avatar is fitted to pictures of it that the prior has painted over; not in the paper)."""
    guidance_scale: float = 7.5
    """How strongly the prompt pulls (classifier-free guidance, the paper's s)."""
    negative_scale: float = 1.0
    """How strongly the negative prompt pushes away (the paper's s_neg)."""
    control_scale: float = 1.5
    """Strength of the landmark map on the prior (ControlNet conditioning scale)."""
    timesteps: tuple[int, int] = (50, 800)
    """Diffusion timesteps (of 1000) drawn in the first part of the run: lowest and highest."""
    late_timesteps: tuple[int, int] = (20, 550)
    """Diffusion timesteps drawn in the rest of the run: lowest and highest."""
    late_from: float = 0.3
    """Fraction of the run at which the late timesteps begin."""
    repaint_rounds: int = 5
    """Strategy repaint: how many times the pictures are painted anew."""
    repaint_scenes: int = 10
    """Strategy repaint: expressions per round; each is seen by as many cameras as a step has views."""
    repaint_steps: int = 20
    """Strategy repaint: denoising steps from pure noise; from less noise proportionally fewer."""
    repaint_tries: int = 1
    """Strategy repaint: from so many noises the first round picks the one whose picture keeps best to the prompt."""
    repaint_start: int = 980
    """Strategy repaint: timestep (of 1000) that the first round's pictures are noised to."""
    repaint_noise: tuple[int, int] = (835, 400)
    """Strategy repaint: the same of the second and of the last round; between them it falls evenly."""
    repaint_front: float = 180.0
    """Strategy repaint: degrees to either side of the front within which the first round's cameras stay. What they do
    not see takes its colours from what is next to it."""
    repaint_calm: float = 1.0
    """Strategy repaint: share of the guidance scale that the last round has; it falls evenly from the first. What the
    first rounds have settled need not be insisted on, and colours would grow ever gaudier."""
    repaint_carvings: int = 0
    """Strategy repaint: in so many rounds after the first, splats are added where the pictures show hair, a hat or a
    beard off the head. The first round's pictures share their noise, and so their errors."""
    repaint_dssim: float = 0.2
    """Strategy repaint: share of the structural dissimilarity in the photometric loss."""

    position_weight: float = 0.1
    """Weight of the penalty on splats that leave their triangle (Eq. 8-9)."""
    scale_weight: float = 0.1
    """Weight of the penalty on splats that outgrow their triangle (Eq. 8-9)."""
    sparsity_weight: float = 0.0
    """Weight of the mean opacity: above 0, splats that nothing needs fade away. Not in the paper."""

    hold_eyes_and_mouth: bool = False
    """Splats of eyes, lids, lips, mouth and the neck's cut keep place, size and opacity, a mouth its natural colours,
    and iris, pupil and white one colour each: they shut, and stay clear. Not in the paper."""

    densify_from: float = 0.06
    """Fraction of the run at which splats are first cloned and split."""
    densify_until: float = 0.18
    """Fraction of the run after which no splat is cloned or split any more."""
    densify_every: float = 0.03
    """Fraction of the run between two rounds of densification."""
    densify_threshold: float = 0.001
    """A splat is cloned or split where its share of the normalised screen-space gradient exceeds this."""
    densify_limit: int = 2_000_000
    """Densification stops at this many splats."""
    prune_at: tuple[float, ...] = (0.27, 0.3)
    """Fractions of the run at which faint and outsized splats are removed."""
    prune_opacity: float = 0.005
    """Splats fainter than this are pruned."""
    prune_scale: float = 0.12
    """Splats larger than this are pruned, in units in which the head is 1.556 wide or high."""

    cameras: CameraRanges = field(default_factory=CameraRanges)
    """Ranges of the random cameras."""
    background: Literal["random", "grey", "black", "white"] = "random"
    """Solid colour behind the head: another one for each picture, a mid grey for each, or always the same."""
    neutral_share: float = 0.1
    """Share of the steps that show the head at rest; the others draw a random expression and pose."""

    snapshot_every: int = 500
    """Steps between two snapshots (the avatar as it is so far); 0 for none."""
    checkpoint_every: int = 500
    """Steps between two checkpoints, from which a run that was stopped goes on; 0 for none."""

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float | int) and not math.isfinite(number):
                    raise UserError(f"The setting {spec.name} is {number}; it must be a finite number.")
        for names, low, high in _RANGES:
            for name in names.split():
                value = getattr(self, name)
                for number in value if isinstance(value, tuple) else (value,):
                    if not low <= number <= high:
                        raise UserError(f"The setting {name} is {number:g}; it must lie within {low:g} and {high:g}.")
        for name in ("timesteps", "late_timesteps"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"The setting {name} is {low}, {high}; the first must not exceed the second.")
        if self.close_ups >= self.views:
            raise UserError(
                f"The setting close_ups is {self.close_ups}; with {self.views} views there must be fewer, so that some "
                "show the whole head."
            )
        for name, options in (
            ("strategy", ("nfsd", "sds", "repaint")),
            ("background", ("random", "grey", "black", "white")),
        ):
            if getattr(self, name) not in options:
                raise UserError(
                    f"The setting {name} is {getattr(self, name)!r}; it must be one of {', '.join(options)}."
                )

    def to_json(self) -> dict:
        """Plain numbers, strings, lists and dicts, for provenance and checkpoints."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict) -> TrainSettings:
        """The inverse of ``to_json``. An unknown or missing field raises ``UserError``."""
        try:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            ranges = {k: tuple(v) if isinstance(v, list) else v for k, v in values.pop("cameras").items()}
            return TrainSettings(**values, cameras=CameraRanges(**ranges))
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"These training settings do not fit this version of HeadStudio: {error}.") from error


_RANGES = (
    ("steps views splats_per_triangle densify_limit", 1, 10_000_000),
    ("splats close_ups", 0, 10_000_000),
    ("render_size", 8, 8192),
    ("initial_opacity", 1e-3, 0.999),
    ("lr_offset lr_scale lr_rotation lr_colour lr_opacity lr_shape", 0.0, 10.0),
    ("beta1 beta2", 0.0, 0.99999),
    ("final_lr shape_freeze late_from densify_from densify_until prune_at neutral_share", 0.0, 1.0),
    ("densify_every", 1e-6, 1.0),
    ("guidance_scale negative_scale control_scale", 0.0, 1000.0),
    ("timesteps late_timesteps", 0, 999),
    ("repaint_rounds repaint_scenes repaint_steps repaint_tries", 1, 1000),
    ("repaint_start repaint_noise", 1, 999),
    ("repaint_front", 1.0, 180.0),
    ("repaint_calm", 0.0, 1.0),
    ("repaint_carvings", 0, 1000),
    ("repaint_dssim", 0.0, 1.0),
    ("position_weight scale_weight sparsity_weight densify_threshold prune_opacity prune_scale", 0.0, 1e6),
    ("snapshot_every checkpoint_every", 0, 10_000_000),
)

PRESETS: dict[str, tuple[str, TrainSettings]] = {
    "draft": (
        "minutes on two CPU cores, with the built-in prior",
        # The small prior's own samples are better than its score far from them, and a fit to pictures needs far fewer
        # steps: so the avatar is repainted. Rates as a photometric fit wants them, which fall at the end; splats opaque
        # from the start. Cameras and backgrounds are those of most of the built-in prior's training pictures.
        TrainSettings(
            steps=480,
            views=4,
            close_ups=1,
            render_size=128,
            splats_per_triangle=2,
            initial_opacity=0.95,
            strategy="repaint",
            repaint_rounds=6,
            repaint_scenes=8,
            repaint_steps=16,
            repaint_tries=6,
            repaint_noise=(780, 290),
            repaint_front=80.0,
            repaint_calm=0.5,
            repaint_carvings=2,
            guidance_scale=3.5,
            control_scale=1.0,
            background="grey",
            lr_offset=4e-2,
            lr_scale=2e-2,
            lr_colour=3e-2,
            lr_opacity=1e-2,
            position_weight=1e-3,
            scale_weight=2e-2,
            final_lr=0.1,
            hold_eyes_and_mouth=True,
            densify_limit=20_000,
            prune_at=(0.6, 0.8),
            prune_opacity=0.02,
            cameras=CameraRanges(distance=(2.3, 2.5), fov_y=(46.0, 50.0), focus=1.4),
            snapshot_every=50,
            checkpoint_every=50,
        ),
    ),
    "standard": (
        "one GPU with a Stable-Diffusion-class prior: half the paper's steps, pictures and resolution",
        TrainSettings(steps=5_000, views=4, render_size=512, splats_per_triangle=6),
    ),
    "paper": (
        "the paper's numbers, for which its authors report two hours on a 48 GB GPU",
        TrainSettings(),
    ),
}


def get_preset(name: str) -> TrainSettings:
    """The settings of a preset. An unknown name raises ``UserError`` that lists the known ones."""
    if name not in PRESETS:
        known = "; ".join(f"{key} ({text})" for key, (text, _) in PRESETS.items())
        raise UserError(f"There is no preset called {name!r}. Presets: {known}.")
    return PRESETS[name][1]


def settings_help() -> dict[str, str]:
    """Field name to the sentence that documents it."""
    body = ast.parse(textwrap.dedent(inspect.getsource(TrainSettings))).body[0].body
    help_text: dict[str, str] = {}
    for statement, following in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            help_text[statement.target.id] = inspect.cleandoc(following.value.value)
    return help_text
