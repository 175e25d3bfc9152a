import pytest
import torch
from headstudio.guidance.schedule import (
    PUBLISHED_PHASES,
    distillation_weight,
    sample_timesteps,
    timestep_phases,
    timestep_range,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, (50, 800)), (0.2999, (50, 800)), (0.3, (20, 550)), (1.0, (20, 550))]
)
def test_ranges_of_the_published_code(progress, expected):
    assert timestep_range(progress) == expected


def test_settings_of_a_run_make_the_same_phases():
    assert timestep_phases((50, 800), (20, 550), 0.3) == PUBLISHED_PHASES


def test_ranges_scale_with_the_prior():
    assert timestep_range(0.0, total=200) == (10, 160)


@given(progress=st.floats(0, 1), count=st.integers(0, 50), seed=st.integers(0, 2**31))
def test_samples_stay_inside(progress, count, seed):
    low, high = timestep_range(progress)
    t = sample_timesteps(progress, count, torch.Generator().manual_seed(seed))
    assert t.shape == (count,)
    assert t.dtype == torch.int64
    assert ((low <= t) & (t <= high)).all()


def test_both_ends_are_drawn_and_all_alike():
    t = sample_timesteps(0.5, 300_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(t, minlength=1000)
    assert counts[:20].sum() == 0
    assert counts[551:].sum() == 0
    expected = 300_000 / 531
    assert (counts[20:551] - expected).abs().max() < 6 * expected**0.5  # six standard deviations


def test_the_generator_alone_decides():
    first = sample_timesteps(0.1, 16, torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    assert torch.equal(first, sample_timesteps(0.1, 16, torch.Generator().manual_seed(3)))


def test_weight_is_the_noise_variance():
    alphas = torch.tensor([0.9, 0.5, 0.1])
    torch.testing.assert_close(distillation_weight(alphas, torch.tensor([2, 0])), torch.tensor([0.9, 0.1]))
