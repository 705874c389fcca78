# SPDX-License-Identifier: Apache-2.0
"""The quick start: made scenes, a tiny pair of towers, minutes on two CPU cores.

    python -m mtv_jax.train --config configs/quickstart.py --workdir runs/quickstart

The same recipe on your own images, a store with the selections `train` and `heldout`:

    python -m mtv_jax.train --config configs/quickstart.py:store=STORE --workdir runs/own
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, common_evals


def get_config(arg: str | None = None) -> ConfigDict:
    """`data=DIR` holds the stores train and test; `store=STORE` is one store, split.

    Both hold tokenizer.model, unless `tasks` has no vl. Your own store is trained on vl by default,
    as it may have no other labels.
    """
    options = common.parse_arg(arg, tasks="", data="data/quickstart", store="")
    tasks = options.tasks or ("vl" if options.store else "+".join(common.TASKS))
    c = common.base()
    c.batch_size, c.total_steps = 64, 800
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
    c.views.local_crops.size, c.views.region_phrases.length = 24, 12
    c.objectives = common.objectives(c, tasks)
    c.ema.rules = common.teacher(tasks)
    # The published bias of -10 fits batches of tens of thousands; -ln(64), as there are about 64
    # negatives, starts at the loss of a model that does not look at its input.
    for name in {"sigmoid_vl", "grounding"} & set(c.objectives):
        c.objectives[name].update(init_bias=-4.16, chunk=64)
    if "koleo" in c.objectives:
        c.objectives.koleo.group_size = c.get_ref("batch_size")
    if "grounding" in c.objectives:
        c.objectives.grounding.update(texts="unique", max_phrases=100)
    labels = common.sidecars(tasks)
    train = common.store(options.store or f"{options.data}/train", sidecars=labels)
    train["selection"] = "train" if options.store else ""
    c.input.update(
        stores=dict(train=train),
        tokenizer=f"{options.store or options.data}/tokenizer.model",
        text_length=c.model.get_ref("text_length"),
    )
    # Token embeddings start small (SigLIP's init) and get few gradients each: a short run is over
    # before they have grown.
    c.optim.update(lr=5e-4, warmup_steps=50, lr_rules=((".*token_embed", 40.0), (".*", 1.0)))
    c.checkpoint.every = 400
    c.log.update(every=50, interference_every=0)  # compiling it would take a minute
    c.evals = _own(options.store, tasks) if options.store else _scenes(options.data, tasks)
    return c


def _scenes(data: str, tasks: str) -> dict[str, Any]:
    """Evaluators of made scenes; configs/eval/scenes.py has more, those that train a probe."""
    heldout = common.eval_data(f"{data}/test", sidecars=common.sidecars(tasks))
    names = tasks.split("+")
    evals: dict[str, Any] = {}
    if "vl" in names:
        prompts = ("a {}", "a photo of a {}", "{}")
        evals["zeroshot"] = common_evals.zeroshot(heldout, prompts=prompts)
        evals["retrieval"] = common_evals.retrieval(heldout, gallery=500)
    if {"vl", "ssl"} & set(names):  # they train the pooled vector
        voters = common.eval_data(f"{data}/train", limit=2000)
        evals["knn"] = common_evals.knn(heldout, voters)
    if "depth" in names:
        scenes = common.eval_data(f"{data}/test", sidecars=("scene_v1",))
        train = common.eval_data(f"{data}/train", sidecars=(common.DEPTH_SIDECAR,), limit=2000)
        evals["depth"] = common_evals.relative_depth(scenes, train=train, label="depth")
        evals["depth_ridge"] = common_evals.ridge_depth(scenes, train)
    return dict(**evals, heldout=common_evals.heldout(heldout, every=400))


def _own(store: str, tasks: str) -> dict[str, Any]:
    """Evaluators of any images."""
    heldout = common.eval_data(store, selection="heldout", sidecars=common.sidecars(tasks))
    evals = {"retrieval": common_evals.retrieval(heldout)} if "vl" in tasks.split("+") else {}
    return dict(**evals, heldout=common_evals.heldout(heldout, every=400))
