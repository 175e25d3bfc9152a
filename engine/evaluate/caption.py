"""What a prompt says about colours, in the starter prior's words (standard library only)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..starter.vocabulary import COLOURS, EYES, HAIR, LIPS, SKIN, SYNONYMS, Colour

# Noun to the part of the head that it means; the last word of a phrase decides ("top hat")
_PARTS = {
    **dict.fromkeys(("hat", "cap", "beanie", "crown", "helmet", "headband"), "headgear"),
    **dict.fromkeys(("hair", "afro", "mohawk", "ponytail", "bun"), "hair"),
    **dict.fromkeys(("beard", "goatee", "stubble"), "beard"),
    "moustache": "moustache",
    "skin": "skin",
    "eyes": "eyes",
    "lips": "lips",
}
TABLES: dict[str, dict[str, Colour]] = {
    "headgear": COLOURS,
    "hair": HAIR,
    "beard": HAIR,
    "moustache": HAIR,
    "skin": SKIN,
    "eyes": EYES,
    "lips": LIPS,
}
"""For each part the colours that can be said of it, sRGB 0..255."""
_ENDS = {"a", "an", "and", "but", "has", "in", "of", "or", "the", "to", "wearing", "wears", "who", "with", "without"}


@dataclass(frozen=True)
class Claim:
    """The prompt says that this part has this colour."""

    part: str  # key of TABLES
    colour: str  # key of TABLES[part]
    noun: str  # the prompt's word for the part


def colour_claims(prompt: str) -> list[Claim]:
    """The colours that the prompt gives to parts of the head, in order; of two about one part the first.

    A colour belongs to the next noun after it, with no more than adjectives between: "a long white beard", "green
    eyes". Synonyms count ("crimson lipstick"); a colour that the part's table lacks is no claim.
    """
    claims: dict[str, Claim] = {}
    adjectives: list[str] = []
    for word in re.findall(r"[^\W_]+|[,.;]", _plain(prompt)):
        if word in _ENDS or not word[0].isalnum():
            adjectives = []
        elif word in _PARTS:
            part = _PARTS[word]
            colour = next((adjective for adjective in adjectives if adjective in TABLES[part]), None)
            if colour is not None:
                claims.setdefault(part, Claim(part, colour, word))
            adjectives = []
        else:
            adjectives.append(word)
    return list(claims.values())


def mentioned_parts(prompt: str) -> dict[str, str]:
    """Parts that the prompt speaks of, with or without a colour, and the first word for each."""
    parts: dict[str, str] = {}
    for word in re.findall(r"[^\W_]+", _plain(prompt)):
        if word in _PARTS:
            parts.setdefault(_PARTS[word], word)
    return parts


def presence_claims(prompt: str) -> dict[str, bool]:
    """What the prompt says is there or is not: hair, long hair, beard, moustache, headgear, glasses. What it does not
    speak of is not named, and neither is stubble, which is more a shade than a beard."""
    claims: dict[str, bool] = {}
    adjectives: list[str] = []
    for word in re.findall(r"[^\W_]+|[,.;]", _plain(prompt)):
        if word == "shaven":
            claims["beard"] = False
        elif word in ("bald", "hairless"):
            claims["hair"] = False
        elif word in ("glasses", "sunglasses"):
            claims.setdefault("glasses", "without" not in adjectives)
        elif word in _PARTS and word != "stubble":
            part, there = _PARTS[word], "without" not in adjectives
            if part in ("hair", "beard", "moustache", "headgear"):
                claims.setdefault(part, there)
            if word == "hair" and there and ("long" in adjectives or "short" in adjectives):
                claims.setdefault("long hair", "long" in adjectives)
        if word in _PARTS or not word[0].isalnum() or word in _ENDS - {"without", "a", "an"}:
            adjectives = []
        else:
            adjectives.append(word)
    return claims


def _plain(prompt: str) -> str:
    """Lower case, with every synonym replaced by the word that it stands for; longer phrases first."""
    phrases = sorted(SYNONYMS, key=len, reverse=True)
    pattern = r"\b(" + "|".join(map(re.escape, phrases)) + r")\b"
    return re.sub(pattern, lambda match: SYNONYMS[match[0]], prompt.lower())
