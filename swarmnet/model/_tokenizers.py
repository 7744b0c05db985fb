"""The two tokenizers of a run: bytes, built in, and the one that a local model folder brings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarmnet.content import content_hash
from swarmnet.errors import ModelError
from swarmnet.model import id_type

END = "<|end|>"
TOKENIZER_SUFFIXES = (".json", ".txt", ".model")


class ByteTokenizer:
    """A byte's id is its value; 256 ends a document. Needs no download and knows every text."""

    name = "bytes"
    vocab_size = 257
    end = 256

    def encode(self, text: str | bytes) -> NDArray[Any]:
        raw = text.encode() if isinstance(text, str) else text
        return np.frombuffer(raw, dtype=np.uint8).astype(np.uint16)

    def decode(self, ids: Sequence[int]) -> str:
        parts = (END.encode() if i == self.end else bytes((i,)) for i in ids)
        return b"".join(parts).decode(errors="replace")

    def save(self, folder: Path) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        vocab = {letter: byte for byte, letter in enumerate(_byte_letters())}
        inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens([AddedToken(END, special=True, normalized=False)])
        wrapper: Any = PreTrainedTokenizerFast
        outer = wrapper(tokenizer_object=inner, eos_token=END, clean_up_tokenization_spaces=False)
        outer.save_pretrained(folder)
        # transformers 5 writes a class name that version 4 does not know; both know this one.
        settings = folder / "tokenizer_config.json"
        named = json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings.write_text(json.dumps(named, indent=2))


class FolderTokenizer:
    """The tokenizer beside a local model's weights, through ``transformers``."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError when the folder's tokenizer marks no end of a document."""
        from transformers import AutoTokenizer

        self._inner = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if self._inner.eos_token_id is None:
            raise ModelError(f"{folder}: its tokenizer has no eos_token to end a document with")
        self.name = content_hash(folder, TOKENIZER_SUFFIXES)
        self.vocab_size: int = len(self._inner)
        self.end: int = self._inner.eos_token_id

    def encode(self, text: str | bytes) -> NDArray[Any]:
        text = text if isinstance(text, str) else text.decode(errors="replace")
        ids = self._inner(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.asarray(ids, dtype=id_type(self.vocab_size))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._inner.decode([int(i) for i in ids], clean_up_tokenization_spaces=False))

    def save(self, folder: Path) -> None:
        self._inner.save_pretrained(folder)


def _byte_letters() -> list[str]:
    """The printable letter that byte-level tokenizers write for each byte (GPT-2's table)."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    strangers = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(strangers)) for byte in range(256)]
