"""The starter prior's language: colours by name, what can be said of a head, synonyms and words without a meaning.

Colours depend on what they are said of: brown skin, brown hair and a brown hat are three different browns.
"""

from __future__ import annotations

import re

Colour = tuple[int, int, int]  # sRGB, 0..255

# Cloth, metal, paint: hats, glasses, make-up
COLOURS: dict[str, Colour] = {
    "red": (205, 25, 30),
    "green": (35, 140, 50),
    "blue": (35, 75, 200),
    "yellow": (245, 215, 40),
    "orange": (240, 125, 25),
    "purple": (115, 45, 150),
    "pink": (245, 130, 180),
    "brown": (105, 62, 30),
    "black": (24, 22, 24),
    "white": (242, 242, 240),
    "grey": (128, 128, 130),
    "turquoise": (50, 190, 190),
    "gold": (205, 160, 55),
    "silver": (188, 194, 205),
    "navy": (20, 25, 85),
}

HUMAN_SKIN: dict[str, Colour] = {
    "pale": (250, 228, 216),
    "fair": (236, 195, 170),
    "tan": (212, 156, 114),
    "olive": (176, 146, 94),
    "brown": (140, 92, 62),
    "dark": (82, 52, 38),
}

FANTASTIC_SKIN: dict[str, Colour] = {
    "green": (95, 155, 70),
    "blue": (70, 120, 205),
    "red": (190, 45, 35),
    "purple": (140, 85, 175),
    "yellow": (240, 215, 70),
    "orange": (235, 140, 55),
    "pink": (245, 150, 185),
    "turquoise": (75, 190, 180),
    "grey": (135, 140, 138),
    "white": (240, 240, 242),
    "gold": (205, 160, 55),
    "silver": (185, 190, 200),
}

SKIN = {**HUMAN_SKIN, **FANTASTIC_SKIN}

NATURAL_HAIR: dict[str, Colour] = {
    "black": (30, 25, 24),
    "brown": (92, 58, 34),
    "blonde": (222, 185, 110),
    "ginger": (190, 92, 35),
    "grey": (142, 142, 144),
    "white": (236, 234, 230),
}

DYED_HAIR: dict[str, Colour] = {
    "red": (190, 30, 32),
    "blue": (40, 85, 205),
    "green": (50, 155, 60),
    "pink": (243, 120, 180),
    "purple": (125, 55, 165),
    "orange": (242, 128, 20),
    "turquoise": (60, 190, 185),
    "yellow": (248, 222, 50),
}

HAIR = {**NATURAL_HAIR, **DYED_HAIR}

EYES: dict[str, Colour] = {
    "blue": (70, 125, 200),
    "brown": (95, 58, 32),
    "green": (70, 140, 75),
    "grey": (130, 138, 145),
    "red": (205, 30, 30),
    "yellow": (240, 205, 45),
    "black": (20, 18, 18),
    "purple": (130, 70, 180),
    "white": (245, 245, 245),
}

LIPS: dict[str, Colour] = {
    "red": (195, 25, 40),
    "pink": (235, 105, 150),
    "purple": (120, 45, 130),
    "black": (30, 20, 25),
    "blue": (50, 80, 190),
}

HAIR_STYLES = ("bald", "buzz", "short", "long", "curly", "afro", "mohawk", "ponytail", "bun", "spiky")
BEARDS = ("none", "stubble", "moustache", "goatee", "short", "long")
HEADGEAR = (
    "none",
    "hat",
    "top hat",
    "cowboy hat",
    "wizard hat",
    "santa hat",
    "cap",
    "beanie",
    "crown",
    "helmet",
    "headband",
)
EYEWEAR = ("none", "glasses", "sunglasses", "eyepatch", "mask")

# Moods, each with the expression presets that show it
MOODS: dict[str, tuple[str, ...]] = {
    "smiling": ("smile", "laugh"),
    "angry": ("anger",),
    "sad": ("sadness",),
    "surprised": ("surprise",),
}

# What spoils a picture, by the way in which it is spoilt (``degrade.py``): the words of negative prompts
NEGATIVE_WORDS: dict[str, tuple[str, ...]] = {
    "blur": ("blurry", "out of focus", "blurry, out of focus"),
    "pixels": ("low resolution", "low quality", "low quality, low resolution"),
    "contrast": ("low contrast", "dull", "dull, low contrast"),
    "darkness": ("dark", "too dark", "dark, dull"),
    "noise": ("noisy", "low quality, noisy"),
    "warp": ("ugly", "deformed", "unrealistic", "ugly, unrealistic", "ugly, deformed"),
}

# Spellings and words that mean the same are made one before the model reads them, longer phrases first; what is left
# to learn is what differs.
SYNONYMS: dict[str, str] = {
    "no beard": "clean shaven",
    "without a beard": "clean shaven",
    "without beard": "clean shaven",
    "clean-shaven": "clean shaven",
    "beardless": "clean shaven",
    "no": "without",
    "no hair": "bald head",
    "without hair": "bald head",
    "hairless": "bald",
    "shaved head": "bald head",
    "baldheaded": "bald",
    "facial hair": "beard",
    "handlebar moustache": "moustache",
    "crew cut": "buzz cut",
    "cropped hair": "buzz cut",
    "pony tail": "ponytail",
    "pigtail": "ponytail",
    "hair bun": "bun",
    "top knot": "bun",
    "topknot": "bun",
    "punk hair": "mohawk",
    "iroquois": "mohawk",
    "mohican": "mohawk",
    "frizzy": "curly",
    "wavy": "curly",
    "curls": "curly hair",
    "dreadlocks": "long hair",
    "flowing": "long",
    "trimmed": "short",
    "bushy": "long",
    "baseball cap": "cap",
    "woolly hat": "beanie",
    "wool hat": "beanie",
    "knitted hat": "beanie",
    "stetson": "cowboy hat",
    "witch hat": "wizard hat",
    "pointed hat": "wizard hat",
    "pointy hat": "wizard hat",
    "christmas hat": "santa hat",
    "santa claus": "santa",
    "father christmas": "santa",
    "tophat": "top hat",
    "tiara": "crown",
    "diadem": "crown",
    "fedora": "hat",
    "sun hat": "hat",
    "sunhat": "hat",
    "straw hat": "yellow hat",
    "hairband": "headband",
    "bandana": "headband",
    "spectacles": "glasses",
    "eyeglasses": "glasses",
    "dark glasses": "sunglasses",
    "shades": "sunglasses",
    "eye patch": "eyepatch",
    "lipstick": "lips",
    "mouth": "lips",
    "pointy": "pointed",
    "elvish": "elf",
    "elven": "elf",
    "gentleman": "man",
    "guy": "man",
    "male": "man",
    "lady": "woman",
    "female": "woman",
    "granny": "old woman",
    "grandmother": "old woman",
    "grandma": "old woman",
    "grandfather": "old man",
    "grandpa": "old man",
    "boy": "young man",
    "girl": "young woman",
    "lad": "young man",
    "teenager": "young person",
    "elderly": "old",
    "aged": "old",
    "ancient": "old",
    "senior": "old",
    "youthful": "young",
    "somebody": "person",
    "someone": "person",
    "human": "person",
    "chubby": "fat",
    "overweight": "fat",
    "plump": "fat",
    "obese": "fat",
    "skinny": "thin",
    "slim": "thin",
    "slender": "thin",
    "gaunt": "thin",
    "demon": "devil",
    "satan": "devil",
    "undead": "zombie",
    "android": "robot",
    "cyborg": "robot",
    "extraterrestrial": "alien",
    "martian": "alien",
    "sorcerer": "wizard",
    "magician": "wizard",
    "mage": "wizard",
    "sculpture": "statue",
    "marble": "white",
    "stone": "grey",
    "dracula": "vampire",
    "troll": "orc",
    "ogre": "orc",
    "goblin": "orc",
    "monarch": "king",
    "prince": "king",
    "princess": "queen",
    "bandit": "superhero",
    "jester": "clown",
    "warrior": "knight",
    "skeleton": "skull",
    "smile": "smiling",
    "grinning": "smiling",
    "happy": "smiling",
    "laughing": "smiling",
    "cheerful": "smiling",
    "furious": "angry",
    "frowning": "angry",
    "grumpy": "angry",
    "astonished": "surprised",
    "shocked": "surprised",
    "amazed": "surprised",
    "unhappy": "sad",
    "crying": "sad",
    "hat with a brim": "hat",
    "gray": "grey",
    "blond": "blonde",
    "golden": "gold",
    "silvery": "silver",
    "mustache": "moustache",
    "violet": "purple",
    "scarlet": "red",
    "crimson": "red",
    "cyan": "turquoise",
    "teal": "turquoise",
    "beige": "tan",
    "redhead": "ginger hair",
    "redheaded": "ginger",
    "haired": "hair",
    "bearded": "with a beard",
    "eyed": "eyes",
    "skinned": "skin",
    "tanned": "tan",
    "bronze": "tan",
    "ebony": "dark",
    "caucasian": "european",
    "japanese": "asian",
    "chinese": "asian",
    "korean": "asian",
    "nigerian": "african",
    "photograph": "photo",
    "picture": "photo",
    "image": "photo",
    "render": "photo",
    "rendering": "photo",
    "headshot": "portrait",
    "bust": "portrait",
    "painting": "portrait",
    "blurred": "blurry",
    "grainy": "noisy",
    "distorted": "deformed",
    "disfigured": "deformed",
    "bad": "low quality",
    "worst": "low quality",
    "gloomy": "dark",
    "murky": "dark",
    "lowres": "low resolution",
    "pixelated": "low resolution",
    "hd": "high quality",
    "uhd": "high quality",
    "4k": "high quality",
    "8k": "high quality",
    "masterpiece": "high quality",
    "detailed": "high quality",
    "sharp": "high quality",
    "professional": "high quality",
    "studio": "high quality",
    "dslr": "photo",
}

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, as ``Prior.unknown_words`` splits it."""
    return _WORD.findall(text.lower())


# Words that may stand in a prompt without being named as unknown although they change nothing
STOP_WORDS = frozenset(
    words_of(
        """
    a an and any are as at be been both but by can close-up do does down each for from fully had has have having he her
    hers him his if in into is it its just like looking looks made me more most much my nice next nor not of off on one
    only onto or other our out over please quite rather really s she shot show shows showing so some such than that the
    their them then there these they this those to too two up upon very was wears wearing we were what which while who
    whose will with without you your close view style ultra realistic generation dc
    """
    )
)
