"""The development prompts use the starter prior's language, and all of it."""

from __future__ import annotations

from pathlib import Path

from headstudio.evaluate.caption import colour_claims
from headstudio.starter.tokenizer import known_words
from headstudio.starter.vocabulary import words_of

PROMPTS = (Path(__file__).parents[2] / "benchmarks" / "development_prompts.txt").read_text().splitlines()


def test_a_hundred_different_prompts_of_known_words():
    assert len(set(PROMPTS)) == len(PROMPTS) == 100
    known = set(known_words())
    assert [word for prompt in PROMPTS for word in words_of(prompt) if word not in known] == []


def test_they_give_colours_to_every_part():
    claims = [(claim.part, claim.colour) for prompt in PROMPTS for claim in colour_claims(prompt)]
    assert {part for part, _ in claims} == {"hair", "beard", "moustache", "headgear", "skin", "eyes", "lips"}
    assert len(claims) > 100
