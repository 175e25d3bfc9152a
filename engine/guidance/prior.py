"""The diffusion prior: a text-conditioned UNet, the ControlNet that reads landmark maps, and their encoders.

One class serves Stable Diffusion 1.5 and 2.x class models, with their own or with a tiny autoencoder (as the built-in
starter prior has), and models in pixel space: the folder decides.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import UserError
from .load import load_diffusers, load_tokenizer, load_transformers, read_config, read_vocabulary
from .locate import locate_prior, revision_of

_LEAST_ALPHA = 2.0**-24  # alpha_bar, as diffusers has it where it would be 0
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Prior:
    """A frozen diffusion model. Pictures are [B, H, W, 3] in 0..1; latents are [B, C, h, w] float32.

    Without an autoencoder the latents are the pictures themselves, scaled to -1..1.
    """

    def __init__(
        self,
        unet: nn.Module,  # diffusers.UNet2DConditionModel
        controlnet: nn.Module,  # diffusers.ControlNetModel
        text_encoder: nn.Module,  # transformers.CLIPTextModel
        tokenizer,  # transformers.PreTrainedTokenizerBase
        scheduler_config: dict,  # scheduler_config.json of diffusers
        vae: nn.Module | None = None,  # diffusers.AutoencoderKL or AutoencoderTiny
        name: str = "",
        revision: str = "",
        vocabulary: frozenset[str] | None = None,
        all_round: bool = False,
        views_at_once: int | None = None,
        compile_backend: str | None = None,
    ):
        """``all_round``: the ControlNet learnt landmark maps from all sides, hidden landmarks included, and wants them
        (``condition.picture.draw_all_round_map``). ``views_at_once`` limits the pictures per network evaluation (a
        picture with one text counts once), and has the autoencoder evaluated again in the backward pass instead of
        keeping what it computed: slower, smaller, and the same numbers. ``compile_backend`` has torch.compile make the
        networks faster, by the backend of that name ("inductor" on a GPU): minutes at the first step, and numbers that
        differ in the last digits.

        Raises ``UserError`` if the parts do not fit together, or for a backend that torch does not have.
        """
        from diffusers import DDPMScheduler

        if views_at_once is not None and views_at_once < 1:
            raise UserError(f"views_at_once is {views_at_once}; it must be at least 1.")
        self.unet, self.controlnet, self.text_encoder, self.vae = unet, controlnet, text_encoder, vae
        for module in filter(None, (unet, controlnet, text_encoder, vae)):
            module.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.name, self.revision, self.vocabulary = name, revision, vocabulary
        self.all_round = all_round
        self.views_at_once = views_at_once
        self.device, self.dtype = unet.device, unet.dtype
        try:
            scheduler = DDPMScheduler.from_config(scheduler_config)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UserError(f"The scheduler of the prior {name} is of no known kind: {error}") from error
        # A schedule may end in pure noise, in which no clean picture can be found by dividing by the square root of 0
        alphas = scheduler.alphas_cumprod.clamp_min(_LEAST_ALPHA)
        self.alphas_cumprod: Tensor = alphas.to(self.device, torch.float32)  # [timesteps] alpha_bar
        self.prediction_type: str = scheduler.config.prediction_type
        self.latent_size = _side(unet.config.sample_size)
        halvings = _halvings(vae) if vae is not None else 0
        self.image_size = self.latent_size * 2**halvings
        strided = len(controlnet.config.conditioning_embedding_out_channels) - 1
        self.condition_size = self.latent_size * 2**strided
        self._check_parts()
        if self.device.type == "cuda":
            # Tensor cores read convolutions with the channels innermost; otherwise cuDNN transposes at every layer.
            for module in filter(None, (unet, controlnet, vae)):
                module.to(memory_format=torch.channels_last)
        if compile_backend is not None:
            self._compile(compile_backend)

    def _compile(self, backend: str) -> None:
        known = torch.compiler.list_backends(exclude_tags=("debug",))
        if backend not in (*known, "eager"):
            raise UserError(f"torch.compile has no backend {backend!r} here; it has {', '.join(known)}.")
        encoder = None if self.vae is None else self.vae.encoder
        for module in filter(None, (self.unet, self.controlnet, encoder)):
            # The number of pictures differs from step to step: see distil.py and _residuals
            module.compile(backend=backend, dynamic=True)

    @property
    def timesteps(self) -> int:
        """Training timesteps of the diffusion, 1000 for all known models."""
        return len(self.alphas_cumprod)

    @property
    def latent_channels(self) -> int:
        return self.unet.config.in_channels

    @staticmethod
    def load(
        source: str | Path,  # "starter", a name in known.py, a diffusers folder, or OWNER/NAME@COMMIT on the hub
        *,
        device: torch.device | str,
        dtype: torch.dtype | None = None,  # default: float16 on CUDA, float32 elsewhere
        revision: str | None = None,  # commit hash, if it is not in the source
        controlnet: str | Path | None = None,  # folder or OWNER/NAME/SUBFOLDER@COMMIT; default the folder's own
        attention_slicing: bool = False,
        views_at_once: int | None = None,
        compile_backend: str | None = None,
        download: bool = False,
    ) -> Prior:
        """Load a prior. Nothing is fetched from the network unless ``download``. ``views_at_once`` and
        ``compile_backend``: see the constructor.

        ``attention_slicing`` computes attention head by head: less memory where the device has no fused attention
        (on CUDA it has), at the price of time.

        Raises ``UserError``: weights that are not here (with the command that fetches them), pickled weights, damaged
        files, parts that do not fit together.
        """
        from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
        from transformers import CLIPTextModel

        model, control = locate_prior(source, revision, controlnet, download)
        folder = model.folder
        index = read_config(folder / "model_index.json")
        control_folder = control.folder if control else folder / "controlnet"
        if not control_folder.is_dir():
            raise UserError(
                f"{folder} has no controlnet/ folder: name the ControlNet for landmark maps as well, "
                "with --controlnet FOLDER or OWNER/NAME/SUBFOLDER@COMMIT."
            )
        device = torch.device(device)
        dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
        unet = load_diffusers(UNet2DConditionModel, folder / "unet", dtype).to(device)
        controlnet_model = load_diffusers(ControlNetModel, control_folder, dtype).to(device)
        text_encoder = load_transformers(CLIPTextModel, folder / "text_encoder", dtype).to(device)
        # The index decides: a model with an autoencoder whose folder got lost is damaged, not a pixel-space model.
        kind = index.get("vae", [None, None])
        vae = None
        if kind != [None, None]:
            tiny = kind == ["diffusers", "AutoencoderTiny"]
            vae = load_diffusers(AutoencoderTiny if tiny else AutoencoderKL, folder / "vae", dtype).to(device)
        if attention_slicing:
            for module in (unet, controlnet_model):
                module.set_attention_slice("max")
        return Prior(
            unet=unet,
            controlnet=controlnet_model,
            text_encoder=text_encoder,
            tokenizer=load_tokenizer(folder / "tokenizer"),
            scheduler_config=read_config(folder / "scheduler" / "scheduler_config.json"),
            vae=vae,
            name=model.name if control is None else f"{model.name} + {control.name}",
            revision=revision_of(model, control),
            vocabulary=read_vocabulary(folder / "vocabulary.json"),
            all_round=control is None and bool(index.get("all_round_landmark_maps", False)),
            views_at_once=views_at_once,
            compile_backend=compile_backend,
        )

    def _check_parts(self) -> None:
        unet, control, text = self.unet.config, self.controlnet.config, self.text_encoder.config
        # "text" pools the same embeddings that the attention reads; the other kinds want inputs of their own
        if unet.addition_embed_type not in (None, "text") or unet.class_embed_type is not None:
            raise UserError(
                f"The prior {self.name} wants more than text and timestep (as Stable Diffusion XL does); "
                "only models of the Stable Diffusion 1.5 and 2 class are understood."
            )
        width = unet.cross_attention_dim
        pairs = {
            "text encoder's width": (text.hidden_size, width),
            "ControlNet's text width": (control.cross_attention_dim, width),
            "ControlNet's number of channels": (control.in_channels, unet.in_channels),
            "ControlNet's list of widths": (tuple(control.block_out_channels), tuple(unet.block_out_channels)),
            "UNet's number of output channels": (unet.out_channels, unet.in_channels),
            "autoencoder's number of channels": (
                self.vae.config.latent_channels if self.vae is not None else 3,
                unet.in_channels,
            ),
        }
        for part, (have, want) in pairs.items():
            if have != want:
                raise UserError(f"The prior {self.name} does not fit together: its {part} is {have}, not {want}.")
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(
                f"The prior {self.name} predicts {self.prediction_type!r}; "
                "only epsilon and v_prediction are understood."
            )

    @property
    def token_limit(self) -> int:
        """Tokens that the text encoder reads, with the two that mark start and end; a longer prompt is cut."""
        return min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)

    def exceeds_token_limit(self, prompt: str) -> bool:
        """Whether the end of the prompt would be cut off."""
        return len(self.tokenizer(prompt, truncation=False, verbose=False).input_ids) > self.token_limit

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embeddings [B, T, D] float32, T being ``token_limit``."""
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=self.token_limit, truncation=True, return_tensors="pt"
        )
        # Like Stable Diffusion's own pipelines: the padding is part of what the UNet attends to, without a mask.
        return self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state.float()

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of the prompt, in order and once each, that are not in the prior's vocabulary; [] if it has none."""
        if self.vocabulary is None:
            return []
        words = dict.fromkeys(_WORD.findall(prompt.lower()))
        return [word for word in words if word not in self.vocabulary]

    def encode_images(
        self,
        images: Tensor,  # [B, H, H, 3] in 0..1
    ) -> Tensor:
        """Latents [B, C, h, w] float32, differentiable. The pictures are first brought to ``image_size``, filtered.

        Where an autoencoder gives a distribution, they are its mean: the same picture gives the same latents.
        """
        assert images.ndim == 4, images.shape
        assert images.shape[1:] == (images.shape[1], images.shape[1], 3), images.shape
        pixels = resize_pictures(images, self.image_size).permute(0, 3, 1, 2) * 2 - 1
        if self.vae is None:
            return pixels.float()
        if self.views_at_once is None:
            return self._encode(pixels)
        chunks = pixels.split(self.views_at_once)
        return torch.cat([checkpoint(self._encode, chunk, use_reentrant=False) for chunk in chunks])

    def _encode(self, pixels: Tensor) -> Tensor:  # [B, 3, S, S] in -1..1 -> [B, C, h, w]
        encoded = self.vae.encode(pixels.to(self.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents.float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:  # [B, C, h, w] -> [B, S, S, 3] in 0..1
        """Pictures of latents, at ``image_size``."""
        if self.vae is not None:
            chunks = (latents / self.vae.config.scaling_factor).to(self.dtype).split(self.views_at_once or len(latents))
            latents = torch.cat([self.vae.decode(chunk).sample for chunk in chunks])
        return (latents.float().permute(0, 2, 3, 1) * 0.5 + 0.5).clamp(0, 1)

    def add_noise(
        self,
        latents: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w] standard normal
        t: Tensor,  # [B] int64
    ) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) noise."""
        alpha = self.alphas_cumprod[t.to(self.device)][:, None, None, None]
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    @torch.no_grad()
    def predict_noise(
        self,
        latents: Tensor,  # [B, C, h, w] noisy, x_t
        t: Tensor,  # [B] int64, on any device
        text: Tensor,  # [B, T, D]
        condition: Tensor,  # [B, S, S, 3] in 0..1, S = condition_size
        control_scale: Tensor | float,  # [B] or one for all; 0: the ControlNet has no part
    ) -> Tensor:
        """Predicted noise eps [B, C, h, w] float32, whatever the model itself predicts. No gradient."""
        batch = len(latents)
        assert latents.shape == (batch, self.latent_channels, self.latent_size, self.latent_size), latents.shape
        assert t.shape == (batch,), t.shape
        assert text.shape == (batch, *text.shape[1:2], self.unet.config.cross_attention_dim), text.shape
        assert condition.shape == (batch, self.condition_size, self.condition_size, 3), condition.shape
        if isinstance(control_scale, Tensor):
            assert control_scale.shape == (batch,), control_scale.shape
            scales = control_scale.tolist()
        else:
            scales = [float(control_scale)] * batch
        t = t.to(self.device)
        size = self.views_at_once or max(batch, 1)
        outputs = [
            self._evaluate(
                latents[i : i + size].to(self.dtype),
                t[i : i + size],
                text[i : i + size].to(self.dtype),
                condition[i : i + size].permute(0, 3, 1, 2).to(self.dtype),
                scales[i : i + size],
            ).float()
            for i in range(0, batch, size)
        ]
        output = torch.cat(outputs)
        if self.prediction_type == "epsilon":
            return output
        # v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0, solved for eps together with x_t
        alpha = self.alphas_cumprod[t][:, None, None, None]
        return alpha.sqrt() * output + (1 - alpha).sqrt() * latents

    def _evaluate(self, latents: Tensor, t: Tensor, text: Tensor, condition: Tensor, scales: list[float]) -> Tensor:
        residuals = self._residuals(latents, t, text, condition, scales)
        return self.unet(latents, t, encoder_hidden_states=text, return_dict=False, **residuals)[0]

    def _residuals(self, latents: Tensor, t: Tensor, text: Tensor, condition: Tensor, scales: list[float]) -> dict:
        """What the ControlNet adds to the UNet, each picture's with its own scale; those with scale 0 skip it."""
        active = [row for row, scale in enumerate(scales) if scale != 0]
        if not active:
            return {}
        # Every index by a list would be a copy to the GPU of its own
        rows = slice(None) if len(active) == len(scales) else torch.tensor(active, device=latents.device)
        down, middle = self.controlnet(
            latents[rows],
            t[rows],
            encoder_hidden_states=text[rows],
            controlnet_cond=condition[rows],
            return_dict=False,
        )
        factor = torch.tensor([scales[row] for row in active], device=latents.device, dtype=latents.dtype)

        def place(residual: Tensor) -> Tensor:
            residual = residual * factor[:, None, None, None]
            if len(active) == len(scales):
                return residual
            full = residual.new_zeros(len(scales), *residual.shape[1:])
            full[rows] = residual
            return full

        return {
            "down_block_additional_residuals": tuple(place(residual) for residual in down),
            "mid_block_additional_residual": place(middle),
        }


def resize_pictures(pictures: Tensor, size: int) -> Tensor:  # [B, H, W, 3] -> [B, size, size, 3]
    """Pictures on another pixel grid: the mean over whole blocks where they fit, else bilinear with antialiasing."""
    height, width = pictures.shape[1:3]
    if (height, width) == (size, size):
        return pictures
    planes = pictures.permute(0, 3, 1, 2)
    if height == width and height % size == 0:
        planes = F.avg_pool2d(planes, height // size)
    else:
        planes = F.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return planes.permute(0, 2, 3, 1)


def _halvings(vae: nn.Module) -> int:
    """How many times the side of a picture is halved on the way to its latents."""
    levels = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
    return len(levels) - 1


def _side(sample_size: int | list | tuple) -> int:
    if isinstance(sample_size, int):
        return sample_size
    if len(set(sample_size)) != 1:
        raise UserError(f"The prior works on {sample_size} pictures; only square ones are understood.")
    return sample_size[0]
