# SPDX-License-Identifier: Apache-2.0
"""Tags by any SigLIP-type model: those of a list whose sigmoid probability with the image is high.

Published weights and our own exports will do: the model is read as `mtv_jax.predict` reads it.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, UInt8

from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Wants
from mtv_jax.interop.loading import load_folder
from mtv_jax.interop.trained import match_logits, unit
from tools.label.base import Labeller, Licence, Outcome, Sample, digest_of
from tools.label.tagging import Tagger

_TEXTS = 256  # at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiglipTags(Tagger):
    """Tags of every image, the most probable first.

    Attributes:
        model: folder of an export or of SigLIP weights.
        tag_list: file of the tags, one a line.
        prompt: template; `{}` in it is the tag.
        min_score: least probability.
    """

    sidecar: str = "siglip_tags_v1"
    model: str = ""
    tag_list: str = ""
    prompt: str = "a photo of a {}"
    min_score: float = at_least(0.0, 0.1)

    kind: ClassVar[str] = "siglip"

    @property
    def licence(self) -> Licence:
        return Licence(name="that of the model", commercial=None)

    def load(self, device: str) -> "_Tagger":
        del device
        if not self.model:
            raise UserError(f"experts.{self.name}.model: give the folder of a SigLIP-type model")
        # The next expert, in the same process, may want the GPU's memory for PyTorch.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        return _Tagger(self)


class _Tagger(Labeller):
    def __init__(self, settings: SiglipTags):
        self._settings = settings
        self._model = load_folder(settings.model)
        self._names = _tags(settings)
        prompts = [settings.prompt.replace("{}", name) for name in self._names]
        parts = [prompts[i : i + _TEXTS] for i in range(0, len(prompts), _TEXTS)]
        self._texts = unit(np.concatenate([self._model.text_features(part) for part in parts]))
        weights = sorted(pathlib.Path(settings.model).glob("*.safetensors"))
        self.digest = digest_of(*weights, pathlib.Path(settings.tag_list))

    def prepare(self, sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
        return self._model.squash([sample.image])[0]

    def infer(self, prepared: Sequence[np.ndarray]) -> Float32[np.ndarray, "b tags"]:
        pixels = self._model.images.pixels(np.stack(prepared))
        pooled = np.asarray(self._model.encode_image(pixels, Wants(pooled=True)).pooled)
        logits = match_logits(unit(pooled), self._texts, **self._model.logit_scalars)
        return 1 / (1 + np.exp(-logits))

    def finish(self, prepared: np.ndarray, result: Float32[np.ndarray, " tags"]) -> Outcome:
        del prepared
        kept = np.flatnonzero(result >= self._settings.min_score)
        if not len(kept):
            return Outcome(reason="no tag that is likely enough", detail=f"best {result.max():.3f}")
        names = [self._names[index] for index in kept]
        return Outcome(labels=self._settings.best(names, result[kept]))


def _tags(settings: SiglipTags) -> list[str]:
    try:
        lines = pathlib.Path(settings.tag_list).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"experts.{settings.name}.tag_list: {error}; give a file, a tag a line"
        ) from error
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names or "{}" not in settings.prompt:
        raise UserError(
            f"experts.{settings.name}: want tags in tag_list, a tag a line, and {{}} in prompt"
        )
    return names
