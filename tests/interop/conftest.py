# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece

from input_pipeline.tokenizer import Tokenizer
from mtv_jax.interop.golden import TEXTS
from mtv_jax.interop.save import save_folder
from mtv_jax.interop.trained import TrainedEncoder
from mtv_jax.models.encoder import Encoder
from mtv_jax.objectives.depth import Depth

LOGITS = {"vl_logits": {"logit_scale": np.float32(2.5), "logit_bias": np.float32(-9.25)}}


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc_cf",
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tiny.model"
    path.write_bytes(model.getvalue())
    return str(path)


@pytest.fixture(scope="session")
def export(tokenizer_path):
    encoder = Encoder(
        image_size=32,
        patch_size=8,
        image_tower="cpu",
        text_tower="cpu",
        vocab_size=100,
        text_length=12,
        has_mask_token=True,
        dtype="bfloat16",
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32),
        jax.eval_shape(encoder.init, jax.random.key(0)),
    )
    depth = Depth(name="depth", layers=(0, 1, 2, 3), features=4, channels=(4, 4, 6, 6))
    return TrainedEncoder(
        encoder=encoder,
        params={"backbone": params, "heads": {**LOGITS, "depth_dpt": head_params(depth, encoder)}},
        objectives={"depth": depth},
        tokenizer=Tokenizer(tokenizer_path, encoder.text_length),
        provenance={"run": "a test", "step": 7},
    )


def head_params(depth, encoder):
    """Random parameters of a depth head on this tower."""
    taps = [jnp.zeros((1, encoder.grid**2, encoder.embed_dim))] * 4
    init = functools.partial(depth.heads()["depth_dpt"].init, grid=encoder.grid, size=32)
    return jax.tree.map(np.asarray, init(jax.random.key(1), taps)["params"])


@pytest.fixture(scope="session")
def image_only(export):
    """The same without texts."""
    params = {
        "backbone": {"image": export.params["backbone"]["image"]},
        "heads": {"depth_dpt": export.params["heads"]["depth_dpt"]},
    }
    encoder = dataclasses.replace(export.encoder, has_text_tower=False)
    return dataclasses.replace(export, encoder=encoder, params=params, tokenizer=None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, export):
    directory = tmp_path_factory.mktemp("export") / "new" / "folder"
    save_folder(directory, export, numbers={"zero-shot top-1": 0.4321})
    return directory
