# SPDX-License-Identifier: Apache-2.0
"""The quick start: made scenes, a tiny pair of towers, minutes on two CPU cores.

python -m mtv_jax.train --config configs/quickstart.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """`data=DIR` holds the stores train and test and tokenizer.model."""
    options = common.parse_arg(arg, tasks="vl", data="data/quickstart")
    train, test = f"{options.data}/train", f"{options.data}/test"
    c = common.base()
    c.batch_size, c.total_steps = 64, 1800
    c.model.update(
        image_size=64,
        patch_size=8,
        image_tower="cpu",
        text_tower="cpu",
        vocab_size=512,
        text_length=20,
        dtype="float32",
        scan_unroll=4,
    )
    c.views = common.views(image_size=64, text_length=20)
    c.objectives = common.objectives(options.tasks)
    c.objectives.sigmoid_vl.chunk = 64
    c.input.update(
        stores=dict(train=common.store(train)),
        tokenizer=f"{options.data}/tokenizer.model",
        text_length=20,
    )
    # Embeddings start small (SigLIP's init) and a short run is over before they have grown.
    c.optim.update(lr=1e-3, warmup_steps=50, lr_rules=((".*(pos|token)_embed", 10.0), (".*", 1.0)))
    c.checkpoint.every = 600
    c.log.every = 50
    c.evals = dict(
        zeroshot=dict(
            type="mtv_jax.evaluators.zeroshot:ZeroShot",
            every=0,
            store=test,
            prompts=("a {}", "a photo of a {}", "{}"),
            limit=0,
        ),
        retrieval=dict(
            type="mtv_jax.evaluators.retrieval:Retrieval", every=0, store=test, gallery=500
        ),
        heldout=dict(
            type="mtv_jax.evaluators.heldout:HeldoutLoss", every=600, store=test, batches=4
        ),
    )
    return c
