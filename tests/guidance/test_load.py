"""Loading: what is refused, in which words; and the layouts of folders that real models come in."""

import json
import pickle
import shutil

import huggingface_hub
import pytest
import torch
from headstudio.errors import UserError
from headstudio.guidance.known import KNOWN_PRIORS
from headstudio.guidance.locate import locate_prior
from headstudio.guidance.prior import Prior
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from support.tiny_prior import write_tiny_prior

COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_tiny_prior(tmp_path_factory.mktemp("original"), vae=True)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "prior")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, so that nothing on this machine helps or harms."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def load(source, **options) -> Prior:
    return Prior.load(source, device="cpu", **options)


def output(prior) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 8, 8, generator=generator)
    condition = torch.rand(1, 16, 16, 3, generator=generator)
    return prior.predict_noise(x, torch.tensor([300]), prior.encode_text(["a man"]), condition, 1.0)


# Damage


@pytest.mark.parametrize(
    "name", [UNET, TEXT, "controlnet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"]
)
@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "header", "missing"])
def test_damaged_weights_are_named(folder, name, damage):
    file = folder / name
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {
                "truncated": data[: len(data) // 2],
                "empty": b"",
                "noise": bytes((b * 7 + 13) % 256 for b in range(256)) * 8,
                "header": (2**62).to_bytes(8, "little") + data[8:],
            }[damage]
        )
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(file) in str(error.value)
    assert "download" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "unet/config.json",
        "controlnet/config.json",
        "text_encoder/config.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize("damage", ["{", "", "\x00\xff", "{}", "[1]", "7", None])
def test_damaged_configurations_are_named(folder, name, damage):
    file = folder / name
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage, encoding="latin-1")
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("part", ["unet", "controlnet", "text_encoder", "tokenizer", "scheduler", "vae"])
def test_missing_parts_are_named(folder, part):
    """A lost autoencoder above all: without it the model would pass for one in pixel space."""
    shutil.rmtree(folder / part)
    with pytest.raises(UserError, match=part):
        load(folder)


def test_damaged_tokenizer(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0", "model": 3}')
    with pytest.raises(UserError, match=r"tokenizer.*no readable tokenizer"):
        load(folder)


@pytest.mark.parametrize("name", [UNET, TEXT])
def test_a_weight_that_is_lacking_is_not_left_to_chance(folder, name):
    weights = load_file(folder / name)
    lost = sorted(weights)[3]
    del weights[lost]
    save_file(weights, folder / name, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{name.rpartition('/')[2]}.*{lost}"):
        load(folder)


@pytest.mark.parametrize("name", [UNET, TEXT])
def test_a_weight_of_another_size(folder, name):
    weights = load_file(folder / name)
    key = sorted(weights)[3]
    weights[key] = torch.zeros(7, 7)
    save_file(weights, folder / name, metadata={"format": "pt"})
    with pytest.raises(UserError, match=name):
        load(folder)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("part", ["unet", "controlnet", "text_encoder", "vae"])
@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt"])
def test_pickled_weights_are_refused_unopened(folder, tmp_path, part, suffix):
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    (folder / part / f"{stem}.safetensors").unlink()
    trap = tmp_path / "sprung"
    for name in (stem, "pytorch_model"):
        (folder / part / f"{name}{suffix}").write_bytes(pickle.dumps(Bomb(trap)))
    with pytest.raises(UserError, match=rf"{part} holds only pickled weights .*can run code"):
        load(folder)
    assert not trap.exists()


def test_pickled_weights_beside_safetensors_stay_unopened(folder, tmp_path):
    trap = tmp_path / "sprung"
    for name in ("unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(trap)))
    load(folder)
    assert not trap.exists()


def test_code_in_the_folder_is_not_run(folder, tmp_path):
    """A tokenizer that brings its own Python (auto_map) is refused."""
    trap = tmp_path / "sprung"
    (folder / "tokenizer" / "evil.py").write_text(f"open({str(trap)!r}, 'w')\n")
    path = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="tokenizer"):
        load(folder)
    assert not trap.exists()


@pytest.mark.parametrize("text", ['{"words": []}', "[1]", "nonsense"])
def test_damaged_vocabulary(folder, text):
    (folder / "vocabulary.json").write_text(text)
    with pytest.raises(UserError, match=r"vocabulary\.json"):
        load(folder)


# Layouts


def test_half_precision_files(folder, original):
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = {key: value.half() for key, value in load_file(folder / part / f"{stem}.safetensors").items()}
        save_file(weights, folder / part / f"{stem}.fp16.safetensors", metadata={"format": "pt"})
        (folder / part / f"{stem}.safetensors").unlink()
    torch.testing.assert_close(output(load(folder)), output(load(original)), rtol=0, atol=2e-2)


def test_sharded_files(folder, original):
    weights = load_file(folder / UNET)
    keys = sorted(weights)
    shards = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, part in shards.items():
        save_file({key: weights[key] for key in part}, folder / "unet" / name, metadata={"format": "pt"})
    (folder / UNET).unlink()
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    table = {key: name for name, part in shards.items() for key in part}
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    torch.testing.assert_close(output(load(folder)), output(load(original)))

    (folder / "unet" / "b.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.safetensors is damaged"):
        load(folder)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(keys, "../controlnet/x.safetensors")}))
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        load(folder)


def test_text_encoder_of_a_published_model(folder, original):
    """Stable Diffusion's files prefix every key with text_model. and hold an index that is no weight."""
    weights = {
        "text_model." + key.removeprefix("text_model."): value for key, value in load_file(folder / TEXT).items()
    }
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(weights, folder / TEXT, metadata={"format": "pt"})
    torch.testing.assert_close(
        load(folder).encode_text(["a man"]), load(original).encode_text(["a man"]), rtol=0, atol=0
    )


def test_tokenizer_of_a_published_model(folder, original):
    """Stable Diffusion's repositories hold vocab.json and merges.txt, not tokenizer.json."""
    tokenizer = folder / "tokenizer"
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    torch.testing.assert_close(
        load(folder).encode_text(["a red hat"]), load(original).encode_text(["a red hat"]), rtol=0, atol=0
    )


def test_controlnet_from_another_folder(folder, original, tmp_path):
    shutil.move(folder / "controlnet", tmp_path / "control")
    with pytest.raises(UserError, match=r"no controlnet/ folder.*--controlnet"):
        load(folder)
    prior = load(folder, controlnet=tmp_path / "control")
    assert prior.name == "prior + control"
    torch.testing.assert_close(output(prior), output(load(original)))


def test_revision_tells_weights_apart(folder, original, tmp_path):
    first = load(folder)
    assert first.revision.startswith("sha256:")
    assert first.revision == load(original).revision
    assert first.name == "prior"
    other = write_tiny_prior(tmp_path / "other", vae=True, seed=1)
    assert load(other).revision != first.revision


# Names and the hub


def test_unknown_names_list_what_there_is(tmp_path):
    with pytest.raises(UserError, match=r"'realistc'.*starter, realistic-vision.*folder.*hub id"):
        load("realistc")
    with pytest.raises(UserError, match="no prior"):
        load(tmp_path / "nowhere")


def test_single_files_are_explained(tmp_path):
    file = tmp_path / "model.ckpt"
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "sprung")))
    with pytest.raises(UserError, match=r"single file.*diffusers folder"):
        load(file)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("source", ["owner/name", "owner/name@main", "owner/name@0123abc"])
def test_hub_ids_need_a_commit(source):
    with pytest.raises(UserError, match=r"owner/name needs a revision.*owner/name@HASH"):
        load(source)


def test_missing_weights_say_what_to_do():
    known = KNOWN_PRIORS["realistic-vision"]
    with pytest.raises(UserError) as error:
        load("realistic-vision")
    text = str(error.value)
    for part in (known.model, known.controlnet):
        assert f"hf download {part.repo} --revision {part.revision} --include " in text
        assert part.licence in text
        assert f"{part.gigabytes:g} GB" in text
    assert "'unet/*.safetensors'" in text
    assert "'diffusion_sd15/*.safetensors'" in text
    assert huggingface_hub.constants.HF_HUB_CACHE in text
    assert "--download" in text
    assert "--prior starter" in text


def test_only_what_is_missing_is_listed(folder):
    with pytest.raises(UserError) as error:
        load(folder, controlnet=f"owner/control/sub@{COMMIT}")
    assert f"hf download owner/control --revision {COMMIT} --include 'sub/*.json'" in str(error.value)
    assert str(error.value).count("hf download") == 1


def test_known_priors_are_pinned():
    for known in KNOWN_PRIORS.values():
        for part in (known.model, known.controlnet):
            assert len(part.revision) == 40
            assert int(part.revision, 16)
            assert part.licence
            assert part.gigabytes > 0


def fill_cache(cache, repo, source):
    """What a finished download leaves behind."""
    snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(source, snapshot)


def test_hub_models_load_from_the_cache_offline(original, hub_cache, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("reached for the network"))
    fill_cache(hub_cache, "owner/name", original)
    prior = load(f"owner/name@{COMMIT}")
    assert prior.name == "owner/name"
    assert prior.revision == COMMIT
    assert load("owner/name", revision=COMMIT).revision == COMMIT
    torch.testing.assert_close(output(prior), output(load(original)))


def test_controlnet_in_a_subfolder_of_the_hub(original, folder, hub_cache):
    shutil.rmtree(folder / "controlnet")
    (original.parent / "several").mkdir(exist_ok=True)
    shutil.copytree(original / "controlnet", original.parent / "several" / "sd15", dirs_exist_ok=True)
    fill_cache(hub_cache, "owner/control", original.parent / "several")
    prior = load(folder, controlnet=f"owner/control/sd15@{COMMIT}")
    assert prior.name == "prior + owner/control/sd15"
    assert prior.revision.endswith(f" + {COMMIT}")
    torch.testing.assert_close(output(prior), output(load(original)))


def test_download_happens_only_with_consent(original, monkeypatch):
    calls = []

    def fake(repo, **options):
        calls.append((repo, options))
        if options["local_files_only"]:
            raise LocalEntryNotFoundError("not here")
        return str(original)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    with pytest.raises(UserError, match="hf download"):
        load(f"owner/name@{COMMIT}")
    assert [options["local_files_only"] for _, options in calls] == [True]
    prior = load(f"owner/name@{COMMIT}", download=True)
    assert prior.revision == COMMIT
    repo, options = calls[-1]
    assert (repo, options["revision"], options["local_files_only"]) == ("owner/name", COMMIT, False)
    assert not any(pattern.endswith((".bin", ".ckpt", "*")) for pattern in options["allow_patterns"])


def test_a_subfolder_that_the_hub_does_not_have(original, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **options: str(original))
    with pytest.raises(UserError, match=r"owner/control at .* has no folder sd99"):
        load(original, controlnet=f"owner/control/sd99@{COMMIT}", download=True)


def test_failing_downloads_are_one_line(monkeypatch):
    for error in (
        LocalEntryNotFoundError("no route"),
        OSError(28, "No space left on device"),
        RuntimeError("what an HTTP library raises"),
        KeyError(),
    ):

        def fake(*args, error=error, **options):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
        with pytest.raises(UserError, match=r"owner/name.*cannot be downloaded.*--prior starter") as caught:
            load(f"owner/name@{COMMIT}", download=True)
        assert "\n" not in str(caught.value)


def test_a_folder_wins_over_a_hub_id(original, tmp_path, monkeypatch):
    shutil.copytree(original, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    located, control = locate_prior("owner/name", None, None, download=False)
    assert located.folder.resolve() == tmp_path / "owner" / "name"
    assert control is None


def test_the_starter_is_the_packages_own(original, monkeypatch, tmp_path):
    from headstudio.guidance import locate

    monkeypatch.setattr(locate, "model_folder", lambda: original)
    prior = load("starter")
    assert prior.name == "starter"
    torch.testing.assert_close(output(prior), output(load(original)))
    monkeypatch.setattr(locate, "model_folder", lambda: tmp_path / "lost")
    with pytest.raises(UserError, match=r"built-in prior is missing.*install HeadStudio again"):
        load("starter")
