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
        stores=dict(train=train),
        tokenizer=f"{options.store or options.data}/tokenizer.model",
        text_length=20,
    )
    # Embeddings start small (SigLIP's init) and a short run is over before they have grown.
    c.optim.update(lr=1e-3, warmup_steps=50, lr_rules=((".*(pos|token)_embed", 10.0), (".*", 1.0)))
    c.checkpoint.every = 600
    c.log.every = 50
    c.evals = _evals(heldout, classes=not options.store)
    return c


def _evals(heldout: dict[str, Any], *, classes: bool) -> dict[str, Any]:
    """Evaluators of held-out rows; `classes` says whether they are labelled."""
    zeroshot = dict(
        type="mtv_jax.evaluators.zeroshot:ZeroShot",
        every=0,
        **heldout,
        limit=0,
        prompts=("a {}", "a photo of a {}", "{}"),
    )
    return dict(
        **({"zeroshot": zeroshot} if classes else {}),
        retrieval=dict(
            type="mtv_jax.evaluators.retrieval:Retrieval", every=0, **heldout, gallery=500
        ),
        heldout=dict(
            type="mtv_jax.evaluators.heldout:HeldoutLoss", every=600, **heldout, batches=4
        ),
    )
