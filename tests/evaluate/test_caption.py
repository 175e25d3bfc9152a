"""Colours: what prompts say, and how far apart they look."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from headstudio.evaluate.caption import TABLES, Claim, colour_claims, mentioned_parts
from headstudio.evaluate.colours import srgb_to_lab
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("prompt", "claims"),
    [
        ("a smiling old man with a white beard and a red hat", {"beard": "white", "headgear": "red"}),
        ("An elf with GREEN skin and long blonde hair", {"skin": "green", "hair": "blonde"}),
        ("a woman, short curly red hair, blue eyes, pink lips", {"hair": "red", "eyes": "blue", "lips": "pink"}),
        ("crimson lipstick", {"lips": "red"}),
        ("a wizard with a gray mustache and a navy wizard hat", {"moustache": "grey", "headgear": "navy"}),
        ("a man with brown hair and beard", {"hair": "brown"}),
        ("red eyes hat", {"eyes": "red"}),
        ("red, hat", {}),
        ("a ginger hat", {}),  # no colour of hats
        ("a red hat and a green hat", {"headgear": "red"}),
        ("a pirate", {}),
        ("", {}),
        ("a blue-eyed girl", {"eyes": "blue"}),
    ],
)
def test_claims(prompt, claims):
    assert {claim.part: claim.colour for claim in colour_claims(prompt)} == claims


def test_claims_keep_their_order_and_noun():
    assert colour_claims("white beard, red cap") == [Claim("beard", "white", "beard"), Claim("headgear", "red", "cap")]


def test_mentioned_parts():
    assert mentioned_parts("a bald man with a woolly hat and a goatee") == {"headgear": "beanie", "beard": "goatee"}


@given(st.text(max_size=80))
def test_any_text_is_read(text):
    for claim in colour_claims(text):
        assert claim.colour in TABLES[claim.part]


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_lab_is_opencvs(colour):
    pixel = np.array([[colour]], np.float32) / 255
    # OpenCV reads its gamma and its cube root from tables, and is up to 0.47 off
    assert srgb_to_lab(pixel)[0, 0] == pytest.approx(cv2.cvtColor(pixel, cv2.COLOR_RGB2Lab)[0, 0], abs=0.5)


def test_lab_of_known_colours():
    assert srgb_to_lab(np.array([1.0, 1, 1])) == pytest.approx([100, 0, 0], abs=1e-6)
    assert srgb_to_lab(np.zeros(3)) == pytest.approx([0, 0, 0], abs=1e-6)
    assert srgb_to_lab(np.array([1.0, 0, 0])) == pytest.approx([53.24, 80.09, 67.20], abs=0.01)
    assert srgb_to_lab(np.array([0, 0, 1.0])) == pytest.approx([32.30, 79.19, -107.86], abs=0.01)
