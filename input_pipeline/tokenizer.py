# SPDX-License-Identifier: Apache-2.0
"""Captions to ids, the way SigLIP and SigLIP 2 read them.

A SentencePiece model is read as SigLIP's: text is canonicalised (lower case, no punctuation, single
spaces), ids end with EOS and are padded with EOS. A `tokenizer.json` is read as SigLIP 2's, which
is Gemma's: lower case, one EOS, then padding. An over-long text keeps its EOS in the last slot;
the text tower pools at the last slot whatever is there ("sticky" EOS).
"""

import functools
import hashlib
import json
import pathlib
import string
from typing import Protocol

import numpy as np
import sentencepiece

from mtv_jax.core.errors import UserError

EOS = 1  # of a SentencePiece model; it also pads
HUB_FILE, HUB_CONFIG = "tokenizer.json", "tokenizer_config.json"  # names of transformers
_GEMMA_CLASSES = {"Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast"}
_STRIP = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def canonicalize(text: str) -> str:
    """Lower case, ASCII punctuation removed (underscores become spaces), spaces collapsed."""
    return " ".join(text.translate(_STRIP).lower().split())


class Tokenizer:
    """Captions to ids of a static length. Loads its model on first use: cheap to pickle.

    Args:
        path: a SentencePiece model, such as c4_en's `sentencepiece.model`, or a `tokenizer.json`
            with its `tokenizer_config.json` beside it.
        length: ids per text.

    Raises:
        UserError: no model at `path`, or one that the towers cannot read.
    """

    def __init__(self, path: str, length: int):
        self.path, self.length = path, length
        if not path or not pathlib.Path(path).is_file():
            raise UserError(
                f"no tokenizer at input.tokenizer={path!r}; give the path of a SentencePiece model "
                "(c4_en for published weights), or make one with "
                "`python -m tools.data.train_tokenizer --store STORE --output tokenizer.model`"
            )
        self._model.check()

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return Tokenizer, (self.path, self.length)

    @functools.cached_property
    def _model(self) -> "_Model":
        return _Gemma(self.path) if self.is_gemma else _SentencePiece(self.path)

    @property
    def is_gemma(self) -> bool:
        """Whether texts are read as SigLIP 2 reads them."""
        return pathlib.Path(self.path).suffix == ".json"

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._model.vocab_size

    @property
    def canonical(self) -> str:
        """What happens to a text first, in words."""
        return self._model.canonical

    @property
    def end(self) -> str:
        """What follows a text's ids, in words."""
        return self._model.end

    @property
    def eos(self) -> int:
        """The id that ends a text."""
        return self._model.eos

    @property
    def pad(self) -> int:
        """The id after the end."""
        return self._model.pad

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the model file: what identifies a tokenizer, wherever it lies."""
        return hashlib.sha256(pathlib.Path(self.path).read_bytes()).hexdigest()

    def fits(self, text: str) -> bool:
        """Whether `encode` keeps all of a text."""
        return len(self._model.pieces(text)) < self.length

    def encode(self, text: str) -> np.ndarray:
        """Ids of one text: int32 [length], padded."""
        ids = np.full(self.length, self._model.pad, np.int32)
        pieces = self._model.pieces(text)[: self.length - 1]
        ids[: len(pieces)] = pieces
        ids[len(pieces)] = self._model.eos
        return ids


class _Model(Protocol):
    """What reads one kind of file."""

    canonical: str
    end: str
    eos: int
    pad: int
    vocab_size: int

    def check(self) -> None: ...

    def pieces(self, text: str) -> list[int]: ...


class _SentencePiece:
    """SigLIP's."""

    canonical = (
        "underscores to spaces, ASCII punctuation removed, lower case, white space collapsed"
    )
    end = f"id {EOS} after the text and up to the last slot, also when truncated"
    eos = pad = EOS

    def __init__(self, path: str):
        self._path = path
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=path)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{path} is not a SentencePiece model: {error}") from error
        self.vocab_size: int = self._processor.vocab_size()

    def check(self) -> None:
        """The towers were trained on one EOS."""
        if self._processor.eos_id() != EOS:
            raise UserError(
                f"{self._path} has EOS id {self._processor.eos_id()}, but the towers pool at id "
                f"{EOS}; use a model trained with pad_id=0, eos_id=1 such as c4_en"
            )

    def pieces(self, text: str) -> list[int]:
        return self._processor.encode(canonicalize(text))


class _Gemma:
    """SigLIP 2's."""

    canonical = "lower case"

    def __init__(self, path: str):
        self._path = path
        self._config = _hub_config(path)
        try:
            import tokenizers
        except ImportError as error:
            raise UserError(
                f"{path} needs the package tokenizers: pip install tokenizers"
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"{path} is not a tokenizer file: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.eos, self.pad = (self._special(name) for name in ("eos_token", "pad_token"))
        self.end = f"id {self.eos} after the text, also when truncated, then id {self.pad}"

    def check(self) -> None:
        """Other tokenizers canonicalise in other ways."""
        kind = self._config.get("tokenizer_class")
        if kind not in _GEMMA_CLASSES:
            raise UserError(
                f"{self._path} belongs to a {kind}, which is none of {sorted(_GEMMA_CLASSES)}; "
                "for SigLIP's own give its SentencePiece model (spiece.model)"
            )

    def pieces(self, text: str) -> list[int]:
        return self._tokenizer.encode(text.lower(), add_special_tokens=False).ids

    def _special(self, name: str) -> int:
        token = self._config.get(name)
        token = token["content"] if isinstance(token, dict) else token
        number = None if token is None else self._tokenizer.token_to_id(token)
        if number is None:
            raise UserError(f"{self._path} has no id for the {name} {token!r} of {HUB_CONFIG}")
        return number


def _hub_config(path: str) -> dict:
    beside = pathlib.Path(path).with_name(HUB_CONFIG)
    try:
        return json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {beside}, which belongs to {path}: {error}") from error
