"""Whoever builds models must give every peer the same weights and `transformers` a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from swarmnet import registry
from swarmnet.config import Choice
from swarmnet.content import content_hash
from swarmnet.errors import ConfigError, ModelError, StorageError
from swarmnet.model import ModelBuilder, Tokenizer, logits
from swarmnet.train.flat import flatten_parameters

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
CHOICES = {
    "llama": {"architecture": "llama", "config": LLAMA},
    "gpt2": {"architecture": "gpt2", "config": GPT2},
}
TEXTS = [
    "",
    "def f(x):\n\treturn x  # caf\u00e9\n",
    "\u4e2d\u6587 \U0001f600",
    " two  spaces ",
    "\r\n\0",
]


def build(options: dict[str, object], folders: dict[str, Path] | None = None) -> ModelBuilder:
    builder = Choice(name="causal_lm", **options).build("model", folders or {})
    assert isinstance(builder, ModelBuilder)
    return builder


@pytest.fixture(params=sorted(CHOICES))
def builder(request: pytest.FixtureRequest) -> ModelBuilder:
    return build(CHOICES[request.param])


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    builder = build(CHOICES["llama"])
    builder.save(builder.build(11), tmp_path / "model")
    return tmp_path / "model"


def test_the_only_choice_is_causal_lm() -> None:
    assert registry.names("model") == ("causal_lm",)


def test_same_seed_same_bits_whatever_the_global_generator(builder: ModelBuilder) -> None:
    torch.manual_seed(1)
    first = builder.build(5).state_dict()
    torch.rand(7)
    state = torch.get_rng_state()
    second = builder.build(5).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = builder.build(6).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_module_is_float32_in_training_mode(builder: ModelBuilder, ids: torch.Tensor) -> None:
    module = builder.build(0)
    assert module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    scores = logits(module, ids)
    assert scores.shape == (2, 9, 257)
    assert scores.dtype == torch.float32


def test_special_ids_are_the_tokenizers(builder: ModelBuilder) -> None:
    config = builder.build(0).config
    assert (config.vocab_size, config.eos_token_id, config.bos_token_id) == (257, 256, 256)


@pytest.mark.parametrize("flat", [False, True])
def test_saved_model_gives_equal_logits(
    builder: ModelBuilder, ids: torch.Tensor, tmp_path: Path, flat: bool
) -> None:
    module = builder.build(5)
    if flat:
        flatten_parameters(module).mul_(1.01)
    builder.save(module, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    with torch.no_grad():
        assert torch.equal(logits(module.eval(), ids), logits(loaded.eval(), ids))
    tied = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert tied == (loaded.config.model_type == "gpt2")


def test_saved_tokenizer_is_ours(builder: ModelBuilder, tmp_path: Path) -> None:
    builder.save(builder.build(0), tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    ours = builder.tokenizer()
    assert len(loaded) == ours.vocab_size
    assert loaded.eos_token_id == ours.end
    for text in TEXTS:
        encoded = loaded(text)["input_ids"]
        assert encoded == ours.encode(text).tolist()
        assert loaded.decode(encoded) == ours.decode(encoded) == text


def test_byte_tokenizer_takes_any_bytes() -> None:
    tokenizer = build(CHOICES["llama"]).tokenizer()
    assert isinstance(tokenizer, Tokenizer)
    every = bytes(range(256))
    assert np.array_equal(tokenizer.encode(every), np.arange(256))
    assert tokenizer.decode([0xC3, 0x28]) == "\ufffd("
    assert tokenizer.decode([65, tokenizer.end, 66]) == "A<|end|>B"


def test_folder_by_content_hash(saved: Path, ids: torch.Tensor, tmp_path: Path) -> None:
    digest = content_hash(saved)
    builder = build({"folder": digest}, {digest: saved})
    original = build(CHOICES["llama"]).build(11).state_dict()
    module = builder.build(0)
    assert module.training
    assert all(torch.equal(original[name], value) for name, value in module.state_dict().items())
    tokenizer = builder.tokenizer()
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.vocab_size, tokenizer.end) == (257, 256)
    assert tokenizer.encode("h\u00e9".encode()).tolist() == list("h\u00e9".encode())
    assert tokenizer.decode(list("h\u00e9".encode())) == "h\u00e9"
    builder.save(module, tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", local_files_only=True)
    with torch.no_grad():
        assert torch.equal(logits(module.eval(), ids), logits(again.eval(), ids))


def test_folder_that_the_peer_file_does_not_name() -> None:
    with pytest.raises(ModelError, match=r"\[models\]"):
        build({"folder": "0" * 32})


@pytest.mark.parametrize("place", ["empty", "absent"])
def test_folder_without_config(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        build({"folder": "0" * 32}, {"0" * 32: tmp_path / place})


def test_folder_of_another_model(saved: Path) -> None:
    digest = content_hash(saved)
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="another model"):
        build({"folder": digest}, {digest: saved})


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json"])
def test_folder_that_lost_a_file(saved: Path, lost: str) -> None:
    (saved / lost).unlink()
    digest = content_hash(saved)
    with pytest.raises(ModelError, match="model"):
        build({"folder": digest}, {digest: saved}).build(0)


def test_folder_whose_weights_lack_a_tensor(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (saved / "config.json").write_text(json.dumps(config))
    digest = content_hash(saved)
    with pytest.raises(ModelError, match=r"weights lack 'model\.layers\.2"):
        build({"folder": digest}, {digest: saved}).build(0)


def test_folder_with_code_beside_the_weights(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (saved / "config.json").write_text(json.dumps(config))
    (saved / "mine.py").write_text("raise SystemExit('code of a stranger ran')")
    digest = content_hash(saved)
    with pytest.raises(ModelError):
        build({"folder": digest}, {digest: saved}).build(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "lama"}, "try .*llama"),
        ({"architecture": "zzzz"}, "try llama, gpt2"),
        ({"architecture": "t5"}, "no causal language model"),
        ({"config": LLAMA | {"hiden_size": 32}}, "'hiden_size'.*Did you mean 'hidden_size'"),
        ({"config": LLAMA | {"auto_map": {}}}, "unknown key 'auto_map'"),
        ({"config": LLAMA | {"hidden_size": "big"}}, "hidden_size"),
        ({"config": LLAMA | {"hidden_size": 33}}, "multiple"),
        ({"config": LLAMA | {"hidden_size": -32}}, "llama"),
        ({"config": LLAMA | {"vocab_size": 100}}, "below the 257"),
    ],
)
def test_settings_that_are_no_model(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(options).build(0)
    assert "\n" not in str(caught.value)


def test_folder_and_config_together_are_refused() -> None:
    with pytest.raises(ValueError, match="brings its own"):
        build({"folder": "0" * 32, "config": LLAMA})


def test_misspelt_option_is_refused() -> None:
    with pytest.raises((ValueError, ConfigError), match="architectur"):
        build({"architectur": "llama"})


def test_nothing_is_drawn(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    digest = content_hash(saved)
    builder = build({"folder": digest}, {digest: saved})
    builder.save(builder.build(0), tmp_path / "again")
    assert capfd.readouterr() == ("", "")


def test_disk_that_refuses(builder: ModelBuilder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        builder.save(builder.build(0), tmp_path / "file" / "model")
