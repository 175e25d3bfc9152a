"""What the prior computes, against diffusers' own schedulers and networks."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.attention_processor import SlicedAttnProcessor
from headstudio.errors import UserError
from headstudio.guidance.prior import Prior, resize_pictures
from support.tiny_prior import TEXT_WIDTH, write_tiny_prior


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("priors")
    return {vae: write_tiny_prior(root / str(vae), vae=vae, vocabulary=["a", "Man", "hat"]) for vae in (False, True)}


@pytest.fixture(scope="module")
def prior(folders):
    return Prior.load(folders[False], device="cpu")


@pytest.fixture(scope="module")
def latent_prior(folders):
    return Prior.load(folders[True], device="cpu")


def inputs(prior, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    side, channels = prior.latent_size, prior.latent_channels
    return (
        torch.randn(batch, channels, side, side, generator=generator),
        torch.randint(0, 1000, (batch,), generator=generator),
        prior.encode_text(["red hat", "blue hat", "", "a man"][:batch]),
        torch.rand(batch, prior.condition_size, prior.condition_size, 3, generator=generator),
    )


def test_sizes_follow_from_the_configurations(prior, latent_prior):
    assert (prior.image_size, prior.latent_size, prior.latent_channels, prior.condition_size) == (16, 16, 3, 32)
    assert (latent_prior.image_size, latent_prior.latent_size, latent_prior.latent_channels) == (16, 8, 4)
    assert latent_prior.condition_size == 16
    assert prior.timesteps == 1000
    assert prior.dtype == torch.float32


def test_alphas_are_the_schedulers(prior):
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(prior.alphas_cumprod, scheduler.alphas_cumprod)
    x, t, _, _ = inputs(prior, 4)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prior.add_noise(x, noise, t), scheduler.add_noise(x, noise, t))


def test_batch_equals_one_by_one(prior):
    x, t, text, condition = inputs(prior, 4)
    scale = torch.tensor([0.0, 0.3, 1.5, 1.0])
    together = prior.predict_noise(x, t, text, condition, scale)
    alone = [
        prior.predict_noise(x[i : i + 1], t[i : i + 1], text[i : i + 1], condition[i : i + 1], float(scale[i]))
        for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_control_scale_belongs_to_its_picture(prior):
    x, t, text, condition = inputs(prior, 3)
    scales = [0.0, 0.7, 2.0]
    result = prior.predict_noise(x, t, text, condition, torch.tensor(scales))
    for i, scale in enumerate(scales):
        with torch.no_grad():
            down, middle = prior.controlnet(
                x[i : i + 1], t[i], text[i : i + 1], condition[i : i + 1].permute(0, 3, 1, 2), scale, return_dict=False
            )
            expected = prior.unet(
                x[i : i + 1],
                t[i],
                text[i : i + 1],
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
        torch.testing.assert_close(result[i : i + 1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result[0], prior.unet(x[:1], t[0], text[:1]).sample[0], rtol=1e-4, atol=1e-5)


def test_scale_zero_does_not_run_the_controlnet(folders):
    prior = Prior.load(folders[False], device="cpu")
    for parameter in prior.controlnet.parameters():
        parameter.fill_(torch.nan)
    x, t, text, condition = inputs(prior, 3)
    result = prior.predict_noise(x, t, text, condition, torch.tensor([0.0, 1.0, 0.0]))
    assert result.isfinite().all(dim=(1, 2, 3)).tolist() == [True, False, True]
    assert prior.predict_noise(x, t, text, condition, 0.0).isfinite().all()


def test_text_time_and_condition_matter(prior):
    x, t, text, condition = inputs(prior, 2)
    base = prior.predict_noise(x, t, text, condition, 1.0)
    for other in (
        (x, t, text.flip(0), condition, 1.0),
        (x, t.flip(0), text, condition, 1.0),
        (x, t, text, condition.flip(0), 1.0),
        (x, t, text, condition, 1.1),
    ):
        assert (prior.predict_noise(*other) - base).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_predictions_carry_no_gradient(prior):
    x, t, text, condition = inputs(prior, 2)
    assert not prior.predict_noise(x.requires_grad_(), t, text, condition, 1.0).requires_grad


def test_v_prediction_is_converted(tmp_path):
    """A network that answers with the exact velocity of (x_0, noise) must come out as that noise."""
    prior = Prior.load(write_tiny_prior(tmp_path, prediction_type="v_prediction"), device="cpu")
    assert prior.prediction_type == "v_prediction"
    x, t, text, condition = inputs(prior, 4)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    prior.unet.forward = lambda *args, **kwargs: (scheduler.get_velocity(x, noise, t),)
    noisy = scheduler.add_noise(x, noise, t)
    torch.testing.assert_close(prior.predict_noise(noisy, t, text, condition, 0.0), noise, rtol=1e-4, atol=1e-5)


def test_v_prediction_through_the_network(tmp_path):
    epsilon = Prior.load(write_tiny_prior(tmp_path / "e"), device="cpu")
    velocity = Prior.load(write_tiny_prior(tmp_path / "v", prediction_type="v_prediction"), device="cpu")
    x, t, text, condition = inputs(epsilon, 3)
    raw = epsilon.predict_noise(x, t, text, condition, 1.0)
    alpha = epsilon.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    expected = alpha.sqrt() * raw + (1 - alpha).sqrt() * x
    torch.testing.assert_close(velocity.predict_noise(x, t, text, condition, 1.0), expected)


def test_pixel_space_latents_are_the_pictures(prior):
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    latents = prior.encode_images(images)
    torch.testing.assert_close(latents, images.permute(0, 3, 1, 2) * 2 - 1)
    torch.testing.assert_close(prior.decode(latents), images)


def test_autoencoder_latents(latent_prior):
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    latents = latent_prior.encode_images(images)
    distribution = latent_prior.vae.encode(images.permute(0, 3, 1, 2) * 2 - 1).latent_dist
    torch.testing.assert_close(latents, distribution.mean * 0.18215)
    decoded = latent_prior.vae.decode(latents / 0.18215).sample.permute(0, 2, 3, 1) / 2 + 0.5
    torch.testing.assert_close(latent_prior.decode(latents), decoded.clamp(0, 1))


def test_latents_of_a_tiny_autoencoder(tmp_path):
    prior = Prior.load(write_tiny_prior(tmp_path, vae="tiny"), device="cpu")
    assert (prior.latent_size, prior.image_size, prior.latent_channels) == (8, 16, 4)
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    latents = prior.encode_images(images)
    torch.testing.assert_close(latents, 1.3 * prior.vae.encode(images.permute(0, 3, 1, 2) * 2 - 1).latents)
    decoded = prior.vae.decode(latents / 1.3).sample.permute(0, 2, 3, 1) / 2 + 0.5
    torch.testing.assert_close(prior.decode(latents), decoded.clamp(0, 1))


def test_encoding_is_differentiable(latent_prior):
    generator = torch.Generator().manual_seed(0)
    images = (0.2 + 0.6 * torch.rand(1, 40, 40, 3, generator=generator)).requires_grad_()
    direction = torch.randn(images.shape, generator=generator)
    weights = torch.randn(1, 4, 8, 8, generator=generator)
    (latent_prior.encode_images(images) * weights).sum().backward()
    slope = (images.grad * direction).sum()
    step = 1e-2
    with torch.no_grad():
        there, back = (
            (latent_prior.encode_images(images + sign * step * direction) * weights).sum() for sign in (1, -1)
        )
    torch.testing.assert_close(slope, (there - back) / (2 * step), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("size", [16, 32, 48, 40, 17, 8])
def test_resizing_keeps_what_is_smooth(size):
    """A ramp stays that ramp, sampled at the new pixel centres, away from the border where filters are cut."""
    centres = (torch.arange(size) + 0.5) / size
    ramp = torch.stack((*torch.meshgrid(centres, centres, indexing="ij"), torch.ones(size, size)), -1)[None]
    resized = resize_pictures(ramp, 16)
    target = (torch.arange(16) + 0.5) / 16
    tolerance = 1e-5 if size % 16 == 0 or size < 16 else 0.05 / 16  # a filter cut at pixels is off by 0.05 pixel
    torch.testing.assert_close(resized[0, 2:-2, 8, 0], target[2:-2], rtol=0, atol=tolerance)
    torch.testing.assert_close(resized[0, 8, 2:-2, 1], target[2:-2], rtol=0, atol=tolerance)
    torch.testing.assert_close(resized[..., 2], torch.ones(1, 16, 16))


def test_resizing_filters_what_is_too_fine():
    """A checkerboard of single pixels becomes grey: no aliasing, for whole and for broken ratios."""
    for size in (64, 50):
        rows = torch.arange(size)
        board = ((rows[:, None] + rows) % 2).float()[None, :, :, None].expand(-1, -1, -1, 3)
        assert (resize_pictures(board, 16) - 0.5).abs()[:, 1:-1, 1:-1].max() < 0.1


def test_text_is_the_encoders_last_state(prior):
    text = prior.encode_text(["a man", ""])
    assert text.shape == (2, 77, TEXT_WIDTH)
    ids = prior.tokenizer(["a man", ""], padding="max_length", max_length=77, return_tensors="pt").input_ids
    torch.testing.assert_close(text, prior.text_encoder(ids).last_hidden_state)
    torch.testing.assert_close(prior.encode_text(["", "a man"])[1], text[0])


def test_long_prompts_are_cut_and_said_so(prior):
    assert prior.token_limit == 77
    assert not prior.exceeds_token_limit("x" * 75)
    assert prior.exceeds_token_limit("x" * 76)
    torch.testing.assert_close(prior.encode_text(["x " * 75]), prior.encode_text(["x " * 5000]))


def test_unknown_words_are_named_once_in_order(prior, tmp_path):
    assert prior.unknown_words("A man, a DRAGON'S hat; dragon-rider dragon's!") == ["dragon's", "dragon", "rider"]
    assert prior.unknown_words("a man") == []
    assert Prior.load(write_tiny_prior(tmp_path), device="cpu").unknown_words("anything goes") == []


def test_views_at_once_limits_every_network(folders, monkeypatch):
    """No network sees more pictures than allowed, and the autoencoder runs again for the backward pass."""
    prior = Prior.load(folders[True], device="cpu", views_at_once=2)
    batches = {"unet": [], "controlnet": [], "vae": []}
    for name, method in (("unet", "forward"), ("controlnet", "forward"), ("vae", "encode")):
        network = getattr(prior, name)
        original = getattr(network, method)

        def counted(x, *args, original=original, seen=batches[name], **kwargs):
            seen.append(len(x))
            return original(x, *args, **kwargs)

        monkeypatch.setattr(network, method, counted)
    x, t, text, condition = inputs(prior, 3)
    prior.predict_noise(x, t, text, condition, 1.0)
    images = torch.rand(3, 16, 16, 3, requires_grad=True)
    prior.encode_images(images).sum().backward()
    assert batches["unet"] == batches["controlnet"] == [2, 1]
    assert sorted(batches["vae"]) == [1, 1, 2, 2]


def test_attention_slicing_is_on_when_asked_for(folders):
    plain = Prior.load(folders[False], device="cpu")
    sliced = Prior.load(folders[False], device="cpu", attention_slicing=True)
    for network in ("unet", "controlnet"):
        kinds = [
            {isinstance(p, SlicedAttnProcessor) for p in getattr(which, network).attn_processors.values()}
            for which in (plain, sliced)
        ]
        assert kinds == [{False}, {True}]


def test_bfloat16_stays_near_float32(folders, prior):
    half = Prior.load(folders[False], device="cpu", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    x, t, text, condition = inputs(prior, 2)
    exact = prior.predict_noise(x, t, text, condition, 1.0)
    rough = half.predict_noise(x, t, half.encode_text(["red hat", "blue hat"]), condition, 1.0)
    assert rough.dtype == torch.float32
    assert F.mse_loss(rough, exact) < 1e-2 * exact.square().mean()


def test_views_at_once_must_be_positive(folders):
    with pytest.raises(UserError, match="views_at_once"):
        Prior.load(folders[False], device="cpu", views_at_once=0)


def test_other_prediction_types_are_refused(tmp_path):
    with pytest.raises(UserError, match="'sample'"):
        Prior.load(write_tiny_prior(tmp_path, prediction_type="sample"), device="cpu")


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("controlnet", "cross_attention_dim", 99, "ControlNet's text width is 99, not 16"),
        ("controlnet", "in_channels", 4, "ControlNet's number of channels is 4, not 3"),
        ("controlnet", "block_out_channels", (8, 8), "ControlNet's list of widths"),
        ("unet", "out_channels", 6, "UNet's number of output channels is 6, not 3"),
        ("unet", "addition_embed_type", "text_time", "Stable Diffusion XL"),
        ("unet", "sample_size", (16, 24), "only square ones"),
    ],
)
def test_parts_that_do_not_fit_are_named(prior, monkeypatch, part, field, value, message):
    network = getattr(prior, part)
    wrong = SimpleNamespace(**{**dict(network.config), field: value})
    changed = type("Changed", (type(network),), {"config": property(lambda self: wrong)})
    monkeypatch.setattr(network, "__class__", changed)
    with pytest.raises(UserError, match=message):
        Prior(prior.unet, prior.controlnet, prior.text_encoder, prior.tokenizer, {"num_train_timesteps": 1000})


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_in_half_precision_stays_near_the_cpu(folders, latent_prior):
    gpu = Prior.load(folders[True], device="cuda")
    assert gpu.dtype == torch.float16
    x, t, text, condition = inputs(latent_prior, 3)
    scale = torch.tensor([0.0, 1.0, 1.5])
    exact = latent_prior.predict_noise(x, t, text, condition, scale)
    rough = gpu.predict_noise(x.cuda(), t, text.cuda(), condition.cuda(), scale)
    assert F.mse_loss(rough.cpu(), exact) < 1e-3 * exact.square().mean()
