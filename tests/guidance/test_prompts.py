import pytest
import torch
from headstudio.errors import UserError
from headstudio.guidance.prompts import DEFAULT_NEGATIVE, PromptEmbeddings, view_index, view_prompts


class Recorder:
    """Stands for the text encoder: the embedding of a prompt is its row number."""

    def encode_text(self, prompts):
        self.prompts = prompts
        return torch.arange(len(prompts), dtype=torch.float32)[:, None, None].expand(-1, 2, 3)


@pytest.mark.parametrize(
    ("azimuth", "view"),
    [(0, 0), (45, 0), (-45, 0), (46, 1), (-46, 1), (90, 1), (135, 1), (-135, 1), (136, 2), (180, 2), (-180, 2)],
)
def test_view_by_azimuth(azimuth, view):
    for turn in (-720, -360, 0, 360):
        assert view_index(torch.tensor([float(azimuth + turn)])).tolist() == [view]


def test_every_text_is_encoded_once():
    encoder = Recorder()
    embeddings = PromptEmbeddings.encode(encoder, " a man with a red hat. ")
    assert encoder.prompts == [
        "a man with a red hat, front view",
        "a man with a red hat, side view",
        "a man with a red hat, back view",
        "",
        DEFAULT_NEGATIVE,
    ]
    texts = embeddings.at(torch.tensor([100.0, 0.0, -170.0, 10.0]))
    assert texts.positive[:, 0, 0].tolist() == [1, 0, 2, 0]
    assert texts.null[0, 0] == 3
    assert texts.negative[0, 0] == 4


def test_own_negative_prompt():
    encoder = Recorder()
    PromptEmbeddings.encode(encoder, "a man", "a hat")
    assert encoder.prompts[-1] == "a hat"


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t", " ., "])
def test_empty_prompt(prompt):
    with pytest.raises(UserError, match="prompt is empty"):
        PromptEmbeddings.encode(Recorder(), prompt)


def test_view_prompts_do_not_double_the_comma():
    assert view_prompts("a man,")[0] == "a man, front view"
