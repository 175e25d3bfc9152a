"""A tokenizer whose tokens are words: what the generator's captions can say, and nothing else."""

from __future__ import annotations

import functools
import re

from ..errors import UserError
from .caption import words_in_captions
from .vocabulary import NEGATIVE_WORDS, STOP_WORDS, SYNONYMS, words_of

PADDING, UNKNOWN, START, END = "<pad>", "<unknown>", "<start>", "<end>"
TOKENS = 40
"""Length of every token sequence, start and end included."""


@functools.cache
def token_words() -> tuple[str, ...]:
    """Words with a token of their own, in alphabetical order.

    Articles have none: they change nothing, and short sequences leave room for long prompts.
    """
    negative = {word for phrases in NEGATIVE_WORDS.values() for phrase in phrases for word in words_of(phrase)}
    words = set(words_in_captions()) | negative
    return tuple(sorted(words - {"a", "an", "the", "and", "of"}))


def known_words() -> list[str]:
    """Words that a prompt may use without being told that they are unknown: for ``vocabulary.json``."""
    synonyms = {word for phrase in SYNONYMS for word in words_of(phrase)}
    return sorted(set(token_words()) | synonyms | STOP_WORDS | {"a", "an", "the", "and", "of"})


def build_tokenizer():
    """A ``PreTrainedTokenizerFast`` of lower-case words; synonyms are replaced, punctuation and articles dropped.

    A word that it does not know is dropped too (``unknown_words`` names it to the user): a token that training never
    saw could only mislead.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = token_words()
    vocabulary = {token: row for row, token in enumerate([PADDING, UNKNOWN, START, END, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    phrases = sorted(SYNONYMS, key=lambda phrase: (-len(phrase.split()), -len(phrase), phrase))
    known = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            *(normalizers.Replace(Regex(rf"\b{re.escape(phrase)}\b"), SYNONYMS[phrase]) for phrase in phrases),
            # What remains and is no known word: other words first, then everything between words
            normalizers.Replace(Regex(rf"\b(?!(?:{known})\b)\w+"), " "),
            normalizers.Replace(Regex(r"[\W_]+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(START, vocabulary[START]), (END, vocabulary[END])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        model_max_length=TOKENS,
        padding_side="right",
        truncation_side="right",
    )


def check_words(words: list[str], of: str) -> None:
    """Raises ``UserError`` if what ``of`` names was trained with other words than the tokenizer knows."""
    if words != list(token_words()):
        raise UserError(
            f"{of} was trained with another vocabulary: use the code that trained it, or train anew in an empty folder."
        )
