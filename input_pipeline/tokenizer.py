# SPDX-License-Identifier: Apache-2.0
"""SentencePiece captions the way SigLIP reads them.

Text is canonicalised (lower case, no punctuation, single spaces) in training and in evaluation;
ids end with EOS, are padded with EOS, and an over-long text keeps its EOS in the last slot: the
text tower pools there ("sticky" EOS).
"""

import functools
import hashlib
import pathlib
import string

import numpy as np
import sentencepiece

from mtv_jax.core.errors import UserError

EOS = 1
_STRIP = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def canonicalize(text: str) -> str:
    """Lower case, ASCII punctuation removed (underscores become spaces), spaces collapsed."""
    return " ".join(text.translate(_STRIP).lower().split())


class Tokenizer:
    """Captions to ids of a static length. Loads its model on first use: cheap to pickle.

    Args:
        path: a SentencePiece model, such as c4_en's `sentencepiece.model`.
        length: ids per text.

    Raises:
        UserError: no model at `path`, or one whose EOS is not id 1.
    """

    def __init__(self, path: str, length: int):
        self.path, self.length = path, length
        if not path or not pathlib.Path(path).is_file():
            raise UserError(
                f"no SentencePiece model at input.tokenizer={path!r}; give the path of one "
                "(c4_en for published weights), or make one with "
                "`python -m tools.data.train_tokenizer --store STORE --output tokenizer.model`"
            )
        if self._model.eos_id() != EOS:
            raise UserError(
                f"{path} has EOS id {self._model.eos_id()}, but the towers pool at id {EOS}; use a "
                "model trained with pad_id=0, eos_id=1 such as c4_en"
            )

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return Tokenizer, (self.path, self.length)

    @functools.cached_property
    def _model(self) -> sentencepiece.SentencePieceProcessor:
        try:
            return sentencepiece.SentencePieceProcessor(model_file=self.path)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{self.path} is not a SentencePiece model: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._model.vocab_size()

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the model file: what identifies a tokenizer, wherever it lies."""
        return hashlib.sha256(pathlib.Path(self.path).read_bytes()).hexdigest()

    def fits(self, text: str) -> bool:
        """Whether `encode` keeps all of a text."""
        return len(self._model.encode(canonicalize(text))) < self.length

    def encode(self, text: str) -> np.ndarray:
        """Ids of one text: int32 [length], EOS-padded."""
        ids = np.full(self.length, EOS, np.int32)
        pieces = self._model.encode(canonicalize(text))[: self.length - 1]
        ids[: len(pieces)] = pieces
        return ids
