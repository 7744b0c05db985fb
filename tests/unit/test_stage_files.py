"""Stages from a checkpoint's files and back: the same bits, and only one's own are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stage_models import MODELS, Narrowing, builder_of, chained, loaded, plain, stages_of

from swarmnet.content import content_hash
from swarmnet.errors import ModelError, StorageError
from swarmnet.model import ModelBuilder, _weights, logits

WEIGHTS = "model.safetensors"


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


@pytest.fixture
def saved(name, tmp_path) -> Path:
    return save_whole(name, tmp_path / "saved")


@pytest.fixture
def llama(tmp_path) -> Path:
    return save_whole("llama", tmp_path / "llama")


@pytest.fixture
def ids():
    return torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(3))


def save_whole(name: str, folder: Path) -> Path:
    builder = builder_of(MODELS[name])
    builder.save(builder.build(11), folder)
    return folder


def from_folder(folder: Path) -> ModelBuilder:
    digest = content_hash(folder)
    return builder_of({"folder": digest}, {digest: folder})


def states(builder: ModelBuilder, count: int):
    return [stage.state_dict() for stage in stages_of(builder, count)]


def assert_same(found, expected) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("model*.safetensors"))
    return {key: value for file in files for key, value in load_file(file).items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_stages_of_a_folder_join_to_its_bits(saved, tmp_path, count, ids):
    builder = from_folder(saved)
    stages = stages_of(builder, count)
    original = load_file(saved / WEIGHTS)
    assert_same(builder.join([stage.state_dict() for stage in stages]), original)
    builder.save_joined([stage.state_dict() for stage in stages], tmp_path / "again")
    assert_same(read_all(tmp_path / "again"), original)
    with torch.no_grad():
        whole = logits(loaded(saved), ids)
        assert torch.equal(whole, chained(stages, ids))
        assert torch.equal(whole, logits(loaded(tmp_path / "again"), ids))
    before, after = (
        json.loads((f / "config.json").read_text()) for f in (saved, tmp_path / "again")
    )
    assert before == after


def test_a_joined_folder_is_a_model_folder_again(saved, tmp_path):
    builder = from_folder(saved)
    builder.save_joined(states(builder, 3), tmp_path / "again")
    assert_same(
        from_folder(tmp_path / "again").build(0).state_dict(), builder.build(0).state_dict()
    )
    assert (tmp_path / "again" / "tokenizer.json").exists()


def test_a_sharded_folder_gives_the_same_stages(saved, tmp_path):
    whole = loaded(saved)
    whole.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    from_folder(saved).tokenizer().save(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    one, many = states(from_folder(saved), 3), states(from_folder(tmp_path / "shards"), 3)
    for mine, other in zip(one, many, strict=True):
        assert_same(mine, other)


def test_only_the_stages_own_tensors_are_read(llama, monkeypatch):
    read, theirs = [], _weights.safe_open

    class Spy:
        def __init__(self, *args, **options):
            self.file = theirs(*args, **options)

        def __enter__(self):
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def keys(self):
            return self.opened.keys()

        def get_slice(self, key):
            return self.opened.get_slice(key)

        def get_tensor(self, key):
            read.append(key)
            return self.opened.get_tensor(key)

    monkeypatch.setattr(_weights, "safe_open", Spy)
    stage = from_folder(llama).stage(5, 1, 3, plain())
    assert sorted(read) == sorted(stage.full_name(key) for key in stage.state_dict())


@pytest.mark.parametrize("model", ["gpt2", "llama tied"])
def test_a_trained_tied_model_is_written_untied_and_gives_the_chains_logits(model, tmp_path, ids):
    builder = builder_of(MODELS[model])
    stages = stages_of(builder, 2)
    stages[1].head.weight.data.mul_(1.5)
    builder.save_joined([stage.state_dict() for stage in stages], tmp_path)
    assert not json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]
    with torch.no_grad():
        assert torch.equal(chained(stages, ids), logits(loaded(tmp_path), ids))


def test_a_tied_folder_that_keeps_its_head_too_is_read_as_the_library_reads_it(tmp_path, ids):
    folder = save_whole("gpt2", tmp_path / "both")
    weights = load_file(folder / WEIGHTS)
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    builder = from_folder(folder)
    only = builder.stage(0, 0, 1, plain())
    assert only.embedding.weight is only.head.weight
    with torch.no_grad():
        assert torch.equal(chained(stages_of(builder, 2), ids), logits(builder.build(0), ids))


def test_names_without_the_models_prefix_are_found(tmp_path):
    """GPT-2's published files name their weights so."""
    folder = save_whole("gpt2", tmp_path / "bare")
    weights = load_file(folder / WEIGHTS)
    bare = {key.removeprefix("transformer."): value for key, value in weights.items()}
    save_file(bare, folder / WEIGHTS, metadata={"format": "pt"})
    builder = from_folder(folder)
    assert_same(builder.join(states(builder, 2)), weights)


def test_half_precision_weights_are_widened_without_loss(llama):
    weights = {key: value.bfloat16() for key, value in load_file(llama / WEIGHTS).items()}
    save_file(weights, llama / WEIGHTS, metadata={"format": "pt"})
    builder = from_folder(llama)
    joined = builder.join(states(builder, 2))
    assert_same(joined, {key: value.float() for key, value in weights.items()})


def test_a_boundarys_own_weights_go_to_a_file_of_their_own(tmp_path):
    builder = builder_of(MODELS["llama"])
    stages = stages_of(builder, 2, boundary=Narrowing())
    parts = [stage.state_dict() for stage in stages]
    builder.save_joined(parts, tmp_path)
    extra = load_file(tmp_path / "boundary.safetensors")
    joined = builder.join(parts)
    assert_same(extra, {key: joined[key] for key in joined if key.startswith("boundary.")})
    assert len(extra) == 4
    loaded(tmp_path)


def test_states_are_read_once_and_in_order(tmp_path):
    """So that whoever writes a checkpoint need not hold a model that fits on no peer."""
    builder = builder_of(MODELS["llama"])
    kept, asked = states(builder, 3), []

    class Lazily(list):
        def __iter__(self):
            for index, state in enumerate(kept):
                asked.append((index, len(list(tmp_path.glob("*.safetensors")))))
                yield state

    builder.save_joined(Lazily(kept), tmp_path)
    assert asked == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda parts: parts[:2], "joined stages lack 'lm_head.weight'"),
        (lambda parts: [parts[0], *parts], "stage 1: .* is in another stage too"),
        (lambda parts: [{"model.norm.weight": torch.ones(32)}], "is no parameter of a stage"),
        (lambda parts: [{"body.model.norm.wait": torch.ones(32)}], "the model has no .*wait"),
        (lambda parts: [{"body.model.norm.weight": torch.ones(3)}], r"is \(3,\), not \(32,\)"),
    ],
)
def test_states_that_are_not_those_of_the_stages_do_not_join(spoil, message):
    builder = builder_of(MODELS["llama"])
    with pytest.raises(ModelError, match=message):
        builder.join(spoil(states(builder, 3)))


def rewritten(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def drop(weights) -> None:
    del weights["model.layers.2.mlp.up_proj.weight"]


def shrink(weights) -> None:
    weights["lm_head.weight"] = torch.ones(3, 32)


def spoil(weights) -> None:
    weights["model.norm.weight"][3] = torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"weights lack 'model\.layers\.2\.mlp\.up_proj\.weight'"),
        (shrink, r"'lm_head\.weight' is \(3, 32\), not \(257, 32\)"),
        (spoil, r"weights of 'model\.norm' are not numbers"),
    ],
)
def test_a_folder_whose_weights_do_not_fit_is_refused(llama, change, message):
    rewritten(llama, change)
    builder = from_folder(llama)
    builder.stage(0, 0, 3, plain())
    with pytest.raises(ModelError, match=message) as caught:
        stages_of(builder, 3)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(llama):
    torch.save(load_file(llama / WEIGHTS), llama / "pytorch_model.bin")
    (llama / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="holds no safetensors"):
        from_folder(llama).stage(0, 0, 2, plain())


@pytest.mark.parametrize("place", ["../llama.safetensors", "absent.safetensors"])
def test_an_index_that_names_other_places_is_refused(llama, place):
    (llama / WEIGHTS).rename(llama.parent / "llama.safetensors")
    index = {"weight_map": {"model.norm.weight": place}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="which is no file there"):
        from_folder(llama).stage(0, 0, 2, plain())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none_is_refused(llama, text):
    (llama / WEIGHTS).unlink()
    (llama / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        from_folder(llama).stage(0, 0, 2, plain())
    assert "\n" not in str(caught.value)


def test_quantized_weights_are_refused(llama):
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    with pytest.raises(ModelError, match="quantized weights cannot be trained"):
        from_folder(llama).stage(0, 0, 2, plain())


def test_a_disk_that_refuses_a_joined_model(tmp_path):
    builder = builder_of(MODELS["llama"])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        builder.save_joined(states(builder, 2), tmp_path / "file" / "model")


def test_nothing_is_drawn_on_the_terminal(llama, tmp_path, capfd):
    builder = from_folder(llama)
    builder.save_joined(states(builder, 2), tmp_path / "again")
    assert capfd.readouterr() == ("", "")
