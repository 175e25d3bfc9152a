"""Everything that changes during a run: splats, identity, Adam, density control, counters; to and from a checkpoint."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..avatar.binding import triangle_frames
from ..avatar.density import DensityControl, DensitySettings, replace_rows
from ..avatar.file import Avatar, bake_identity
from ..avatar.initialise import paint_eyes_and_mouth, shrink_neck_cut, super_dense, thin_lids_and_lips
from ..avatar.rigged import RiggedGaussians
from ..avatar.sh_rotation import SH_C0
from ..errors import UserError
from ..heads.arrays import EYEBALLS, MOUTH, HeadArrays
from ..heads.head import Head
from .checkpoint import Checkpoint
from .continued import digest, identity_of
from .settings import TrainSettings

_START = 2**32  # the stream of random numbers that the start draws from: no step has this number


def random_numbers(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """The random numbers of one step, a function of (seed, step) alone: a continued run draws what it would have."""
    numbers = np.random.default_rng([seed, step])
    return numbers, torch.Generator().manual_seed(int(numbers.integers(2**63)))


@dataclass(frozen=True)
class Request:
    """What a run was asked for. A checkpoint belongs to one request and to no other."""

    settings: TrainSettings
    head: HeadArrays
    prior: str
    prior_revision: str
    prompt: str
    negative: str
    seed: int
    start: Avatar | None = None  # the avatar that the run starts from

    def provenance(self) -> dict:
        """JSON values for the avatar file. No clock in it: the same request gives the same file."""
        about = {
            "prompt": self.prompt,
            "negative": self.negative,
            "seed": self.seed,
            "settings": self.settings.to_json(),
            "prior": self.prior,
            "prior_revision": self.prior_revision,
            "head": self.head.name,
            "version": __version__,
        }
        if self.start is not None:
            about["start"] = {"prompt": self.start.provenance.get("prompt"), "digest": digest(self.start)}
        return about

    def fingerprint(self) -> dict:
        """What a checkpoint is compared by."""
        shape = b"".join(np.ascontiguousarray(a).tobytes() for a in (self.head.vertices, self.head.triangles))
        return {**self.provenance(), "head_digest": hashlib.sha256(shape).hexdigest()}


class State:
    """A run after ``step`` steps."""

    def __init__(self, request: Request, head: Head, gaussians: RiggedGaussians, identity: Tensor):
        settings = request.settings
        self.request = request
        self.head = head
        self.step = 0
        self.skipped = 0  # steps without a finite gradient, in all
        self.skipped_in_a_row = 0
        self.painted: Tensor | None = None  # [G, V, S, S, 4] uint8: pictures of the present round (see repaint.py)
        self.first_noise: Tensor | None = None  # [C, h, w] what the first round's pictures started from
        self.views_at_once = settings.views  # fewer after the device ran out of memory
        self.gaussians = gaussians.requires_grad_()
        self.identity = identity.requires_grad_()  # [S]
        rates = {
            "offsets": settings.lr_offset,
            "log_scales": settings.lr_scale,
            "quats": settings.lr_rotation,
            "opacity_logits": settings.lr_opacity,
            "sh": settings.lr_colour,
        }
        groups = [{"name": n, "params": [p], "rate": rates[n]} for n, p in self.gaussians.parameters().items()]
        groups.append({"name": "identity", "params": [self.identity], "rate": settings.lr_shape})
        self.optimiser = torch.optim.Adam(groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=1e-15)
        held = request.head.triangles_in((*EYEBALLS, *MOUTH, "socket", "lid", "lips", "neck_cap"))
        self.held = torch.from_numpy(held).to(head.device)  # [M] bool
        self.natural = torch.from_numpy(request.head.triangles_in(MOUTH)).to(head.device)  # [M] bool
        self.eye_parts = [torch.from_numpy(request.head.triangles_in((part,))).to(head.device) for part in EYEBALLS]
        self.eyes = torch.stack(self.eye_parts).any(0)  # [M] bool
        self.density = DensityControl(
            DensitySettings(
                densify_from=settings.densify_from,
                densify_until=settings.densify_until,
                densify_every=settings.densify_every,
                prune_at=settings.prune_at,
                threshold=settings.densify_threshold,
                limit=settings.densify_limit,
                prune_opacity=settings.prune_opacity,
                prune_scale=settings.prune_scale,
            ),
            settings.steps,
            request.head.unit,
        )

    @staticmethod
    def start(request: Request, head: Head) -> State:
        """The avatar to start from, or super-dense splats on the head at rest in its own shape.

        Raises ``UserError`` if that avatar was made on another head.
        """
        if request.start is not None:
            identity = torch.as_tensor(identity_of(request.head, request.start.head)).to(head.device)
            return State(request, head, RiggedGaussians.from_arrays(request.start.splats, head.device), identity)
        _, generator = random_numbers(request.seed, _START)
        settings = request.settings
        gaussians = super_dense(
            head.template,
            head.triangles,
            settings.splats_per_triangle,
            settings.initial_opacity,
            generator=generator,
            count=settings.splats or None,
        )
        if settings.hold_eyes_and_mouth:
            paint_eyes_and_mouth(gaussians, request.head)
            thin_lids_and_lips(gaussians, request.head)
            shrink_neck_cut(gaussians, request.head)
        return State(request, head, gaussians, torch.zeros(head.identity_size, device=head.device))

    def set_rates(self) -> None:
        """Learning rates of this step: along a cosine to ``final_lr``; the shape's is 0 once it is frozen."""
        settings = self.request.settings
        progress = self.step / settings.steps
        factor = settings.final_lr + (1 - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * factor
        if progress >= settings.shape_freeze and self.identity.requires_grad:
            self.identity = self.identity.detach()
            self.optimiser.param_groups[-1]["params"] = []

    def hold_eyes_and_mouth(self) -> None:
        """Takes the gradient from all but the colours of the splats of eyes, lids, lips, mouth and the neck's cut, and
        within the mouth from the colours too, where the settings say so. White, iris and pupil change their colours as
        wholes, in both eyes alike.

        Pictures as small as a draft's show the inside of a mouth on a few pixels, and mostly not at all: what they
        teach there is noise, and lips that turn transparent to match it. Of an eye they show more, but no two have it
        look quite the same way: each splat by itself would learn a blend of iris, white and lid. The cut through the
        neck is seen from below alone, and tears open if its splats leave to serve other views.
        """
        if self.request.settings.hold_eyes_and_mouth:
            triangle, splats = self.gaussians.triangle, self.gaussians
            for parameter in (splats.offsets, splats.log_scales, splats.quats, splats.opacity_logits):
                parameter.grad[self.held[triangle]] = 0.0
            splats.sh.grad[self.natural[triangle]] = 0.0
            for part in self.eye_parts:
                rows = part[triangle]
                splats.sh.grad[rows] = splats.sh.grad[rows].mean(0)

    def clamp_colours(self) -> None:
        """Keeps the splats' mean colours displayable.

        A prompt pulls without end, and below black a splat would have no gradient to come back by.
        """
        limit = (0.5 - 1 / 255) / SH_C0
        with torch.no_grad():
            self.gaussians.sh[:, 0].clamp_(-limit, limit)

    def gradients_are_finite(self) -> bool:
        parameters = [*self.gaussians.parameters().values(), self.identity]
        return all(p.grad is None or bool(p.grad.isfinite().all()) for p in parameters)

    @torch.no_grad()
    def add(self, splats: RiggedGaussians) -> None:
        """Takes splats of the same SH degree in, with Adam's moments at zero."""
        count, new = len(self.gaussians), len(splats)
        rows = torch.arange(count + new, device=splats.triangle.device).clamp_max(max(count - 1, 0))
        replace_rows(self.gaussians, self.optimiser, rows, fresh=new)
        self.gaussians.triangle[count:] = splats.triangle
        for name, parameter in self.gaussians.parameters().items():
            parameter[count:] = splats.parameters()[name]
        self.density.grow(new)

    @property
    def collects_screen_gradients(self) -> bool:
        """Whether a densification is still to come."""
        return self.step < max(self.density.densify_steps, default=0)

    def control_density(self, generator: torch.Generator) -> None:
        """Clones, splits and prunes where the schedule says so, on the head at rest in its present shape."""
        if self.step in self.density.densify_steps | self.density.prune_steps:
            with torch.no_grad():
                frames = triangle_frames(self.head.rest_vertices(self.identity[None])[0], self.head.triangles)
            self.density.step(self.step, self.gaussians, self.optimiser, frames, generator)

    def avatar(self) -> Avatar:
        """The avatar as it is now, with the identity baked into its head."""
        identity = self.identity.detach().cpu().numpy()
        provenance = {**self.request.provenance(), "step": self.step, "skipped": self.skipped}
        return Avatar(bake_identity(self.request.head, identity), self.gaussians.to_arrays(), provenance)

    def to_checkpoint(self) -> Checkpoint:
        tensors = {"triangle": self.gaussians.triangle, "identity": self.identity.detach()}
        tensors |= {f"splats.{name}": p.detach() for name, p in self.gaussians.parameters().items()}
        tensors |= {f"density.{name}": value for name, value in self.density.state_dict().items()}
        for name in ("painted", "first_noise"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        for group in self.optimiser.param_groups:
            for parameter in group["params"]:
                for key, value in self.optimiser.state.get(parameter, {}).items():
                    tensors[f"adam.{group['name']}.{key}"] = value
        state = {
            "request": self.request.fingerprint(),
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "views_at_once": self.views_at_once,
        }
        return Checkpoint(self.step, tensors, state)

    @staticmethod
    def from_checkpoint(request: Request, head: Head, checkpoint: Checkpoint) -> State:
        """Raises ``UserError`` for a checkpoint of another request."""
        # Through JSON, as the checkpoint's own went: tuples have become lists
        wanted, found = _jsonable(request.fingerprint()), checkpoint.state["request"]
        different = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        if different:
            raise UserError(
                f"The checkpoint belongs to another run: it differs in {', '.join(different)}. "
                "Give the same arguments as before, or start again without --resume."
            )
        tensors = {name: value.to(head.device) for name, value in checkpoint.tensors.items()}

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}

        gaussians = RiggedGaussians(triangle=tensors["triangle"], **part("splats."))
        state = State(request, head, gaussians, tensors["identity"])
        state.step = checkpoint.step
        state.skipped = checkpoint.state["skipped"]
        state.skipped_in_a_row = checkpoint.state["skipped_in_a_row"]
        state.views_at_once = checkpoint.state["views_at_once"]
        state.density.load_state_dict(part("density."))
        state.painted, state.first_noise = (checkpoint.tensors.get(name) for name in ("painted", "first_noise"))
        for group in state.optimiser.param_groups:
            moments = part(f"adam.{group['name']}.")
            if moments:
                moments["step"] = moments["step"].cpu()  # where Adam keeps it
                state.optimiser.state[group["params"][0]] = moments
        return state


def _jsonable(value):
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, list | tuple) else value
