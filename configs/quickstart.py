# SPDX-License-Identifier: Apache-2.0
"""The quick start: made scenes, a tiny pair of towers, minutes on two CPU cores.

    python -m mtv_jax.train --config configs/quickstart.py --workdir runs/quickstart

The same recipe on your own images, a store with the selections `train` and `heldout`:

    python -m mtv_jax.train --config configs/quickstart.py:store=STORE --workdir runs/own
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """`data=DIR` holds the stores train and test; `store=STORE` is one store, split.

    Both hold tokenizer.model.
    """
    options = common.parse_arg(arg, tasks="vl", data="data/quickstart", store="")
    train = common.store(options.store or f"{options.data}/train")
    heldout = common.eval_data(f"{options.data}/test")
    if options.store:
        train["selection"] = "train"
        heldout = common.eval_data(options.store, selection="heldout")
    c = common.base()
    c.batch_size, c.total_steps = 64, 1200
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
    c.views = common.views(c)
    c.objectives = common.objectives(options.tasks, tower="cpu")
    # The published bias of -10 fits batches of tens of thousands; -ln(batch) starts at the loss
    # of a model that does not look at its input.
    c.objectives.sigmoid_vl.update(init_bias=-4.16, chunk=64)
    c.input.update(
        stores=dict(train=train),
        tokenizer=f"{options.store or options.data}/tokenizer.model",
        text_length=c.model.get_ref("text_length"),
    )
    # Token embeddings start small (SigLIP's init) and get few gradients each: a short run is over
    # before they have grown.
    c.optim.update(lr=5e-4, warmup_steps=50, lr_rules=((".*token_embed", 40.0), (".*", 1.0)))
    c.checkpoint.every = 600
    c.log.every = 50
    c.evals = _evals(heldout, scenes=not options.store)
    return c


def _evals(heldout: dict[str, Any], *, scenes: bool) -> dict[str, Any]:
    """Evaluators of held-out rows: of scenes, which are labelled and many, or of any images."""
    zeroshot = dict(
        type="mtv_jax.evaluators.zeroshot:ZeroShot",
        every=0,
        **heldout,
        limit=0,
        prompts=("a {}", "a photo of a {}", "{}"),
    )
    return dict(
        **({"zeroshot": zeroshot} if scenes else {}),
        retrieval=dict(
            type="mtv_jax.evaluators.retrieval:Retrieval",
            every=0,
            **heldout,
            gallery=500 if scenes else 0,
        ),
        heldout=dict(
            type="mtv_jax.evaluators.heldout:HeldoutLoss", every=600, **heldout, batches=4
        ),
    )
