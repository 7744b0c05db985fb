"""Any causal language model that ``transformers`` knows, from a config or from a local folder.

Nothing is fetched: a config makes new weights from the run's seed, a folder is named by content
hash and found through the peer file. Code beside the weights is never run, pickles never read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn

from swarmnet.boundary import Boundary
from swarmnet.config import Section
from swarmnet.content import PATTERN, content_hash
from swarmnet.errors import ModelError, StorageError
from swarmnet.model import Plan, StageModule, Tokenizer
from swarmnet.model._anatomy import Anatomy, dissect
from swarmnet.model._cut import plan
from swarmnet.model._join import Joint, write
from swarmnet.model._stages import BOUNDARY, full_name
from swarmnet.model._tokenizers import ByteTokenizer, FolderTokenizer
from swarmnet.model._weights import Checkpoint, Seeded, Source, furnish, part_seed

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

NOT_FOR_USERS = {"architectures", "model_type", "transformers_version", "_name_or_path", "dtype"}


class CausalLM:
    """A ``transformers`` causal language model with its tokenizer; see ``ModelBuilder``."""

    class Config(Section):
        architecture: str = Field("llama", description="model_type of transformers")
        config: dict[str, Any] = Field(
            {},
            description="keys of the architecture's own config; stages of a pipeline train a tied "
            "embedding and head as two matrices that begin equal",
        )
        folder: str = Field("", pattern=f"^$|{PATTERN}", description="content hash of a folder")

        @model_validator(mode="after")
        def _one_source(self) -> Self:
            if self.folder and self.model_fields_set & {"architecture", "config"}:
                raise ValueError("a model folder brings its own architecture and config")
            return self

    def __init__(self, config: Config, folders: Mapping[str, Path]) -> None:
        """Raises ModelError when ``config.folder`` is not among ``folders`` or holds no model."""
        self.config = config
        self._folder = _found(config.folder, folders) if config.folder else None

    def build(self, seed: int) -> nn.Module:
        module = self._loaded() if self._folder else self._initialised(seed)
        self._check_vocab(module.config)
        module.train()
        return module

    def plan(self, stages: int) -> Plan:
        anatomy = self._anatomy()
        return plan(anatomy.costs(), stages, width=anatomy.width, vocab=anatomy.vocab)

    def stage(self, seed: int, index: int, stages: int, boundary: Boundary) -> StageModule:
        """See ``ModelBuilder``. Foreign parts never exist but as shapes.

        A tied head and embedding are untied at the cut, since keeping them equal would send their
        gradients, V times d values, around the chain at every step. Both begin with the same
        bits. A single stage is not cut and keeps them tied.
        """
        anatomy = self._anatomy()
        layers = plan(anatomy.costs(), stages, width=anatomy.width, vocab=anatomy.vocab).layers
        first, last = index == 0, index == stages - 1
        with _blamed(self._name):
            furnish(anatomy, anatomy.of(layers[index], first, last), self._source(seed, anatomy))
        ends = _ends(boundary, anatomy, seed, index, stages)
        stage = StageModule(anatomy, layers[index], index, stages, ends)
        stage.train()
        if stages > 1:
            boundary.constrain(stage, first, last)
        return stage

    def join(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        parts = _joint(self._anatomy()).parts(states)
        return {name: value for part in parts for name, value in part.items()}

    def save_joined(self, states: Sequence[Mapping[str, Tensor]], folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            anatomy = self._anatomy()
            written = write(_joint(anatomy).parts(states), len(states), folder)
            self._save_settings(anatomy, folder, untied=written >= anatomy.tied.keys())
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{folder}: the model cannot be written: {error}") from error

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def save(self, module: nn.Module, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _no_progress_bars():
                module.save_pretrained(folder, state_dict=_unpacked(module))  # type: ignore[operator]
            self._tokenizer.save(folder)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{folder}: the model cannot be written: {error}") from error

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        if self._folder is None:
            return ByteTokenizer()
        with _blamed(f"{self._folder}: tokenizer"):
            return FolderTokenizer(self._folder)

    @property
    def _name(self) -> str:
        return str(self._folder) if self._folder else f"model {self.config.architecture!r}"

    def _check_vocab(self, config: PreTrainedConfig) -> None:
        known, needed = config.get_text_config().vocab_size, self._tokenizer.vocab_size
        if known < needed:
            raise ModelError(f"model: vocab_size {known} is below the {needed} ids")

    def _anatomy(self) -> Anatomy:
        """Of the model without weights, embedding and head not tied."""
        from transformers import AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM
        config = _read(self._folder) if self._folder else self._described()
        if getattr(config, "quantization_config", None):
            raise ModelError(f"{self._name}: quantized weights cannot be trained")
        self._check_vocab(config)
        tied = getattr(config, "tie_word_embeddings", False)
        config.tie_word_embeddings = False
        with _blamed(self._name), torch.device("meta"):
            model = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
            model.config.tie_word_embeddings = tied
            return dissect(model)

    def _source(self, seed: int, anatomy: Anatomy) -> Source:
        if self._folder is None:
            return Seeded(seed)
        return Checkpoint(self._folder, anatomy.prefix)

    def _save_settings(self, anatomy: Anatomy, folder: Path, untied: bool) -> None:
        """What stands beside the weights: config, settings of generation, tokenizer."""
        from transformers import GenerationConfig

        config = anatomy.model.config
        config.tie_word_embeddings = config.tie_word_embeddings and not untied
        config.architectures = [type(anatomy.model).__name__]
        config.save_pretrained(folder)
        generation = anatomy.model.generation_config
        if self._folder and (self._folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(self._folder, local_files_only=True)
        generation.save_pretrained(folder)
        self._tokenizer.save(folder)

    def _initialised(self, seed: int) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM
        config = self._described()
        with _blamed(f"model {self.config.architecture!r}"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module: PreTrainedModel = auto.from_config(config, dtype=torch.float32)
            return module

    def _described(self) -> PreTrainedConfig:
        """The architecture's config; ids of special tokens are the tokenizer's unless given."""
        from transformers import AutoConfig

        name = self.config.architecture
        _check_architecture(name)
        tokenizer = self._tokenizer
        filled = {"vocab_size": tokenizer.vocab_size, "pad_token_id": None}
        filled |= {"bos_token_id": tokenizer.end, "eos_token_id": tokenizer.end}
        with _blamed(f"model {name!r}"):
            _check_keys(AutoConfig.for_model(name), self.config.config)
            return AutoConfig.for_model(name, **(filled | self.config.config))

    def _loaded(self) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM
        module: PreTrainedModel
        with _blamed(str(self._folder)), _no_progress_bars():
            module, report = auto.from_pretrained(
                self._folder,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        if report["missing_keys"]:
            raise ModelError(f"{self._folder}: weights lack {sorted(report['missing_keys'])[0]!r}")
        return module


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Whatever a model's own code raises on its settings is the act of who wrote the settings."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(f"{what}: {' '.join(lines)[:300] or type(error).__name__}") from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """``transformers`` draws on stderr, where a live view or another program may stand."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _read(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    with _blamed(str(folder)):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return config


def _ends(
    boundary: Boundary, anatomy: Anatomy, seed: int, index: int, stages: int
) -> nn.ModuleDict:
    """The boundary's modules of one stage, named and seeded after their cut."""
    makers = {"receiver": boundary.receiver} if index > 0 else {}
    makers |= {"sender": boundary.sender} if index < stages - 1 else {}
    ends = nn.ModuleDict()
    for name, make in makers.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(part_seed(seed, full_name(f"{BOUNDARY}{name}", index)))
            ends[name] = make(anatomy.width, anatomy.vocab)
    return ends


def _joint(anatomy: Anatomy) -> Joint:
    state = anatomy.model.state_dict()
    return Joint({name: tuple(value.shape) for name, value in state.items()}, anatomy.tied)


def _found(digest: str, folders: Mapping[str, Path]) -> Path:
    folder = folders.get(digest)
    if folder is None:
        raise ModelError(f"model folder {digest}: name its place under [models] in the peer file")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no config.json, so it is no model folder")
    try:
        actual = content_hash(folder)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read: {error}") from error
    if actual != digest:
        raise ModelError(f"{folder}: is another model ({actual}) than the run's ({digest})")
    return folder


def _check_architecture(name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    if name not in KNOWN:
        close = difflib.get_close_matches(name, KNOWN, n=3) or ["llama", "gpt2", "qwen3"]
        raise ModelError(
            f"model architecture {name!r} is no causal language model; try {', '.join(close)}"
        )


def _check_keys(default: PreTrainedConfig, values: Mapping[str, Any]) -> None:
    """``transformers`` takes a misspelt key in silence, and every peer would train a default."""
    known = (default.to_dict().keys() | default.attribute_map.keys()) - NOT_FOR_USERS
    for key in values.keys() - known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ModelError(f"model: unknown key {key!r} for {default.model_type!r}.{hint}")


def _unpacked(module: nn.Module) -> dict[str, Tensor]:
    """The state with memory of its own, tied tensors still shared.

    A replica's parameters are views into one vector; ``save_pretrained`` reads a shared storage as
    tied weights and refuses it.
    """
    own: dict[tuple[int, torch.Size], Tensor] = {}
    state = module.state_dict()
    for tensor in state.values():
        own.setdefault((tensor.data_ptr(), tensor.shape), tensor.detach().cpu().clone())
    return {name: own[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}
