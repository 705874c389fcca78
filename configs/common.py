# SPDX-License-Identifier: Apache-2.0
"""What all configs share: every field with its default, and the views of the recipe.

Any field can be set on the command line: `--config.optim.lr=1e-3`. A config file takes an argument
after a colon, `configs/mtv_b16.py:tasks=vl,scale=100m`.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import budget

TASKS = ("vl", "ssl", "ground", "depth")


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """`key=value,key=value` over typed defaults; an unknown key is an error."""
    values = ConfigDict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, _, value = item.partition("=")
        if key not in values:
            raise ValueError(f"config argument {key!r} is not one of {sorted(defaults)}")
        values[key] = type(defaults[key])(value)
    return values


def base() -> ConfigDict:
    """Every field of a run; the numbers are the receiving dataclasses' own defaults."""
    return ConfigDict(
        dict(
            seed=0,
            batch_size=4096,
            total_steps=48_828,
            micro_batches=1,
            watchdog_seconds=1800,
            model=dict(
                image_size=224,
                patch_size=16,
                image_tower="B",
                text_tower="B",
                vocab_size=32_000,
                text_length=64,
                pooling="map",
                dtype="bfloat16",
                remat="none",
                scan_unroll=1,
                attn_impl="auto",
            ),
            views={},
            objectives={},
            input=dict(
                stores={},
                canvas=0,
                tokenizer="",
                text_length=64,
                workers=0,
                read_threads=1,
                prefetch=2,
            ),
            optim=dict(
                lr=5e-4,
                warmup_steps=1000,
                final_lr=0.0,
                betas=(0.9, 0.95),
                eps=1e-8,
                weight_decay=0.0,
                clip=1.0,
                lr_rules=((".*", 1.0),),
                decay_rules=((".*", 1.0),),
            ),
            init=dict(source="", step=-1),
            ema=dict(momentum=0.994, rules=((".*", False),)),
            mesh=dict(data=-1, fsdp=1),
            checkpoint=dict(every=1000, keep=2, keep_every=0),
            log=dict(every=50, nonfinite="skip", max_skips=20, interference_every=500),
            evals={},
            notes=(),
        )
    )


DEPTH_SIDECAR = "depth_v1"  # holds the column "depth"
REGIONS_SIDECAR = "regions_v1"  # holds the columns "boxes" and "phrases"


def store(path: str, **kwargs: Any) -> dict[str, Any]:
    """One store of a mixture, every field present."""
    defaults = dict(weight=1.0, sidecars=(), selection="", block=1, window=1)
    return dict(path=path, **{**defaults, **kwargs})


def eval_data(
    path: str,
    *,
    selection: str = "",
    sidecars: tuple[str, ...] = (),
    skip: int = 0,
    limit: int = 0,
) -> dict[str, Any]:
    """Rows of a store as an evaluator reads them, every field present."""
    kind = "input_pipeline.eval_set:EvalSet"
    rows = dict(selection=selection, skip=skip, limit=limit)
    return dict(type=kind, store=path, sidecars=sidecars, **rows)


def sidecars(tasks: str) -> tuple[str, ...]:
    """The sidecars whose columns these tasks read."""
    holders = {"ground": REGIONS_SIDECAR, "depth": DEPTH_SIDECAR}
    return tuple(holder for task, holder in holders.items() if task in tasks.split("+"))


def views(c: ConfigDict) -> dict[str, Any]:
    """The views of the recipe, the same for every subset of tasks (MTV section 4).

    Sizes and lengths follow the model's, also when a flag changes those.
    """
    text_length = c.model.get_ref("text_length")
    return {
        "global_crop": dict(
            type="mtv_jax.core.passes:ImageView",
            size=c.model.get_ref("image_size"),
            area=(0.4, 1.0),
            ratio=(3 / 4, 4 / 3),
            flip=0.0,
        ),
        "local_crops": dict(
            type="mtv_jax.core.passes:ImageView",
            size=96,
            count=6,
            area=(0.05, 0.4),
            ratio=(3 / 4, 4 / 3),
            flip=0.5,
        ),
        "caption": dict(
            type="mtv_jax.core.passes:TextView",
            length=text_length,
            pooling_slot=text_length - 1,
        ),
        "region_phrases": dict(
            type="mtv_jax.core.passes:TextView",
            length=16,
            pooling_slot=text_length - 1,  # where captions are pooled
            field="phrases",
            table=True,
        ),
    }


def teacher(tasks: str) -> tuple[tuple[str, bool], ...]:
    """The parameters that have an EMA teacher: image tower and prototype heads (MTV A.2)."""
    if "ssl" not in tasks.split("+"):
        return ((".*", False),)
    return (
        (".*/mask_token", False),  # a teacher sees whole images
        ("backbone/image/.*", True),
        ("heads/(self_distill|masked_pred)_head/.*", True),
        (".*", False),
    )


# What follows from a tower's size: the prototype heads; the prompter, a layer of the tower; the
# blocks that the depth head reads and its widths, those of Depth Anything V2 (MTV appendix A.2).
PROTO_HEADS = {
    "cpu": dict(prototypes=1024, hidden=256, bottleneck=64),
    "B": dict(prototypes=32_768, hidden=2048, bottleneck=256),
    "L": dict(prototypes=32_768, hidden=2048, bottleneck=256),
}
PROMPTERS = {
    "cpu": dict(num_heads=4, mlp_dim=512),
    "B": dict(num_heads=12, mlp_dim=3072),
    "L": dict(num_heads=16, mlp_dim=4096),
}
DEPTH_HEADS = {
    "cpu": dict(layers=(0, 1, 2, 3), features=16, channels=(16, 32, 64, 128)),
    "B": dict(layers=(2, 5, 8, 11), features=128, channels=(96, 192, 384, 768)),
    "L": dict(layers=(5, 11, 17, 23), features=256, channels=(256, 512, 1024, 1024)),
}


def objectives(c: ConfigDict, tasks: str) -> dict[str, Any]:
    """The objectives of `vl+…` for the towers of `c`; a task left out is structurally absent."""
    names = tasks.split("+")
    if unknown := sorted(set(names) - set(TASKS)):
        raise ValueError(f"unknown task {unknown[0]!r}; tasks are joined from {'+'.join(TASKS)}")
    known = {"vl": _contrast, "ssl": _self_supervised, "ground": _grounding, "depth": _depth}
    return {k: v for name in names for k, v in known[name](c).items()}


def _contrast(c: ConfigDict) -> dict[str, Any]:
    del c
    return dict(
        sigmoid_vl=dict(
            type="mtv_jax.objectives.sigmoid_vl:SigmoidVL",
            weight=1.0,
            image_view="global_crop",
            text_view="caption",
            init_scale=10.0,
            init_bias=-10.0,
            chunk=512,
        )
    )


def _self_supervised(c: ConfigDict) -> dict[str, Any]:
    prototypes = dict(
        image_view="global_crop",
        **PROTO_HEADS[c.model.image_tower],
        learn_gains=True,
        student_temp=0.1,
        teacher_temps=(0.04, 0.07),
        temp_warmup=0.3,
        centre_momentum=0.9,
        block_mib=64,
        dtype=c.model.get_ref("dtype"),
    )
    return dict(
        self_distill=dict(
            type="mtv_jax.objectives.self_distill:SelfDistill",
            weight=1.0,
            local_view="local_crops",
            **prototypes,
        ),
        masked_pred=dict(
            type="mtv_jax.objectives.masked_pred:MaskedPred",
            weight=2.0,
            masked=0.5,
            **prototypes,
        ),
        koleo=dict(
            type="mtv_jax.objectives.koleo:KoLeo",
            weight=0.1,
            image_view="global_crop",
            group_size=128,
        ),
    )


def _grounding(c: ConfigDict) -> dict[str, Any]:
    return dict(
        grounding=dict(
            type="mtv_jax.objectives.grounding:Grounding",
            weight=1.0,
            image_view="global_crop",
            text_view="region_phrases",
            texts="full_vocab",
            max_phrases=1024,
            max_regions=4,
            least_score=0.0,
            keep_fraction=0.5,
            least_side=8.0,
            most_overlap=0.8,
            **PROMPTERS[c.model.image_tower],
            reading="fused",
            init_scale=10.0,
            init_bias=-10.0,
            chunk=512,
            dtype=c.model.get_ref("dtype"),
        )
    )


def _depth(c: ConfigDict) -> dict[str, Any]:
    return dict(
        depth=dict(
            type="mtv_jax.objectives.depth:Depth",
            weight=1.0,
            image_view="global_crop",
            **DEPTH_HEADS[c.model.image_tower],
            kept=0.9,
            gradient_weight=2.0,
            least_spread=1e-3,
            least_agreement=-1.0,
        )
    )


# Steps and batch by data scale: 20, 10 and 32 epochs (MTV section 5.1).
SCHEDULES = {"10m": (48_828, 4096), "50m": (122_070, 4096), "100m": (390_625, 8192)}


def published(arg: str | None, *, tower: str, image_size: int) -> ConfigDict:
    """A published recipe: towers of one size, the schedule of a data scale, or of a budget."""
    options = parse_arg(arg, tasks="vl", scale="10m", **budget.OPTIONS)
    if options.scale not in SCHEDULES:
        raise ValueError(f"scale={options.scale!r} is not one of {sorted(SCHEDULES)}")
    c = base()
    c.total_steps, c.batch_size = SCHEDULES[options.scale]
    c.model.update(image_tower=tower, text_tower=tower, image_size=image_size, remat="dots")
    c.views = views(c)
    c.input.text_length = c.model.get_ref("text_length")
    c.objectives = objectives(c, options.tasks)
    c.ema.rules = teacher(options.tasks)
    train = store("data/train", sidecars=sidecars(options.tasks))
    c.input.update(stores=dict(train=train), tokenizer="tokenizer.model", workers=8)
    budget.fit(c, options)
    _follow_batch(c)
    return c


def _follow_batch(c: ConfigDict) -> None:
    """What depends on the batch that a budget left."""
    if "grounding" in c.objectives and c.batch_size < 2048:
        # It holds fewer phrases than there are: 2,002 of 4,585 tags in 2,047 images, if their
        # frequencies follow Zipf's law.
        phrases = min(4 * c.batch_size, 2304)
        c.objectives.grounding.update(texts="unique", max_phrases=phrases)
    if "koleo" in c.objectives and c.batch_size % c.objectives.koleo.group_size:
        wanted = c.objectives.koleo.group_size
        group = next(n for n in range(wanted, 0, -1) if c.batch_size % n == 0)
        c.objectives.koleo.group_size = group
        note = f"objectives.koleo.group_size {wanted} -> {group}: groups divide the batch"
        c.notes = (*c.notes, note)
