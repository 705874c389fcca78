# SPDX-License-Identifier: Apache-2.0
import io

import jax
import numpy as np
import pytest
import sentencepiece

from mtv_jax.interop.golden import TEXTS
from mtv_jax.interop.save import Export, save_hf
from mtv_jax.models.encoder import Encoder


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
    return Export(
        encoder=encoder,
        params=params,
        logit_scale=2.5,
        logit_bias=-9.25,
        tokenizer=tokenizer_path,
        numbers={"zero-shot top-1": 0.4321},
        provenance={"run": "a test", "step": 7},
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory, export):
    directory = tmp_path_factory.mktemp("export") / "new" / "folder"
    save_hf(directory, export)
    return directory
