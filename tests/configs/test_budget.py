# SPDX-License-Identifier: Apache-2.0
"""What a budget makes of the published recipes, against numbers worked out by hand."""

import pytest

from configs import budget, common, mtv_b16, mtv_l16

FIELDS = ("batch_size", "total_steps", "micro_batches")


def _config(arg: str):
    return mtv_b16.get_config(arg)


def _derived(c):
    return {
        **{name: c[name] for name in FIELDS},
        "lr": c.optim.lr,
        "warmup_steps": c.optim.warmup_steps,
        "momentum": c.ema.momentum,
    }


PUBLISHED = {
    "batch_size": 4096,
    "total_steps": 48_828,
    "micro_batches": 1,
    "lr": 5e-4,
    "warmup_steps": 1000,
    "momentum": 0.994,
}


def test_an_a100_for_a_day():
    """0.3 · 312e12 / 139.3e9 = 671.93 images/s; 86,400 s of them are 58.05 M; / 2048 = 28,347.

    State 203.16 M · 16 B = 3.25 GB, four batches of 2048 · 0.602 MB = 4.93 GB; room for 51.9 GB of
    activations in 70 % of 80 GiB: of 2048 · 67 MB = 137.2 GB a quarter fits.
    """
    c = _config("chips=1,hours=24,chip=a100-80")
    assert _derived(c) == {
        "batch_size": 2048,
        "total_steps": 28_347,
        "micro_batches": 4,
        "lr": 0.000353553,  # 5e-4 / sqrt(2)
        "warmup_steps": 581,  # 1000 · 28,347 / 48,828
        "momentum": 0.996995,  # sqrt(0.994)
    }


def test_an_rtx4090_for_a_day_and_every_change_has_its_line():
    """0.3 · 165e12 / 139.3e9 = 355.35 images/s, 30.70 M images: 7,495 · 4096, 14,991 · 2048."""
    c = _config("chips=1,hours=24,chip=rtx4090")
    assert _derived(c) == {
        "batch_size": 1024,
        "total_steps": 29_982,
        "micro_batches": 8,
        "lr": 0.00025,
        "warmup_steps": 614,
        "momentum": 0.998497,
    }
    told, *changes = c.notes
    assert told == (
        "budget 1 x rtx4090, 24 h at 355 images/s and chip (assumed: 30 % of 165 TFLOP/s at 139.3 "
        "GFLOP each): 30,702,081 images of the published 199,999,488"
    )
    assert [note.partition(":")[0] for note in changes] == [
        "batch_size 4096 -> 1024",
        "total_steps 48828 -> 29982",
        "optim.lr 0.0005 -> 0.00025",
        "optim.warmup_steps 1000 -> 614",
        "ema.momentum 0.994 -> 0.998497",
        "micro_batches 1 -> 8",
    ]
    assert changes[0].endswith(
        "7,495 steps of 4096 would be too few updates (at least 20,000 wanted)"
    )


def test_without_a_budget_nothing_changes():
    c = _config("chips=0")
    assert _derived(c) == PUBLISHED and c.notes == ()


def test_a_budget_that_suffices_changes_micro_batches_only():
    c = _config("chips=16,hours=12,chip=a100-40")
    assert _derived(c) == PUBLISHED and len(c.notes) == 1
    assert c.notes[0].endswith("464,438,765 images reaches the published 199,999,488")
    c = _config("chips=1,hours=900,chip=a100-40")
    assert _derived(c) == {**PUBLISHED, "micro_batches": 32} and len(c.notes) == 2


def test_a_batch_that_need_not_shrink_keeps_its_rates():
    c = _config("chips=2,hours=24,chip=a100-80")
    expected = {**PUBLISHED, "total_steps": 28_347, "warmup_steps": 581, "micro_batches": 4}
    assert _derived(c) == expected


@pytest.mark.parametrize("chips", [3, 5, 6, 12])
def test_batches_divide_over_any_number_of_chips(chips):
    """And over their micro-batches; no batch grows, no more than a multiple is lost."""
    c = _config(f"tasks=vl+depth,chips={chips},hours=24,chip=rtx3090")
    multiple = chips * c.micro_batches
    assert c.batch_size % multiple == 0
    halved = next(b for b in (512, 1024, 2048, 4096) if b >= c.batch_size)
    assert halved - c.batch_size < multiple
    assert "a multiple of chips x micro-batches" in c.notes[1]
    assert c.batch_size * c.total_steps <= budget_images(c) < c.batch_size * (c.total_steps + 1)


def test_a_published_batch_is_only_rounded():
    c = _config("chips=6,hours=100,chip=h200")
    assert c.notes[1] == "batch_size 4096 -> 4092: a multiple of chips x micro-batches"
    assert c.total_steps == 199_999_488 // 4092


def budget_images(c) -> int:
    """The images the first note speaks of."""
    return int(c.notes[0].split(": ")[-1].split(" images")[0].replace(",", ""))


def test_the_batch_stops_at_its_floor():
    c = _config("chips=1,hours=2,chip=rtx4090")
    assert c.batch_size == 512 and 1000 <= c.total_steps < 20_000


def test_a_measured_rate_and_depth_count():
    assert (
        _config("chips=1,hours=10,chip=l4,rate=1000")
        .notes[0]
        .startswith(
            "budget 1 x l4, 10 h at 1,000 images/s and chip (as measured): 36,000,000 images"
        )
    )
    both = _config("tasks=vl+depth,chips=1,hours=24,chip=rtx4090")
    assert budget_images(both) == int(86_400 * 0.3 * 165e3 / (139.3 + 2 * 34.5))
    assert both.micro_batches == 16  # 1024 images: 140 MB each, 10.5 GB of room


def test_a_teacher_takes_memory():
    """On an l4 activations have 18.04 GB - 3.25 GB - 2.41 MB an image; a teacher takes 0.81 GB."""
    options = common.parse_arg("", tasks="vl", **{**budget.OPTIONS, "chip": "l4", "chips": 1})
    cost = budget.COSTS["B"]["vl"]
    c = _config("")
    images = 213  # 213 · 67 MB = 14.27 GB of 14.28
    assert budget._micro_batches(c, options, cost, images) == 1
    c.ema.rules = ((".*", True),)
    assert budget._micro_batches(c, options, cost, images) == 2


def test_the_large_model_has_its_own_costs():
    """0.3 · 989e12 / 604.9e9 = 490.5 images/s; four days of 64 are 10.8 G, of 3.2 G."""
    c = mtv_l16.get_config("scale=100m,chips=64,hours=96,chip=h200")
    assert c.batch_size == 8192 and c.total_steps == 390_625 and c.micro_batches == 1
    c = mtv_l16.get_config("scale=100m,chips=4,hours=48,chip=h200")
    assert (c.batch_size, c.total_steps) == (8192, 41_385)
    assert c.micro_batches == 8  # 2048 · 233 MB = 477 GB; an eighth fits in 104 GB


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("chips=1,hours=1,chip=l5", r"chip='l5' is not one of .*'l4'"),
        ("chips=1,hours=0.5,chip=l4", r"budget 1 x l4, 0.5 h .*: 916 steps of 512, fewer"),
        ("chips=1,chip=l4", r"a budget needs hours="),
        ("hours=24,chip=l4", r"a budget needs chips="),
        ("chips=1,hours=24", r"a budget needs chip="),
        ("chips=-1,hours=24,chip=l4", r"cannot be negative"),
        ("chips=1,hours=24,chip=l4,gpu=1", r"'gpu' is not one of"),
    ],
)
def test_budgets_that_cannot_be(arg, message):
    with pytest.raises(ValueError, match=message):
        _config(arg)


def test_chips_that_are_too_small():
    """512 images at 512 px and their copies leave no room beside the state on 16 GiB."""
    with pytest.raises(ValueError, match=r"512 images on one v5e do not fit.* of 16; give more"):
        mtv_l16.get_config("tasks=vl+depth,scale=100m,chips=1,hours=900,chip=v5e")


def test_more_hours_never_turn_a_budget_into_an_error():
    """A batch that leaves no room for micro-batches of 16 is halved, and says why."""
    batches = []
    for hours in (24, 48, 96, 400):
        c = _config(f"tasks=vl+depth,chips=1,hours={hours},chip=v5e")
        assert c.batch_size // c.micro_batches >= 16
        batches.append(c.batch_size)
    assert batches[-1] == 1024  # 2048 and its copies, 8.2 GB, beside 3.4 GB of 13.7
    assert "1024: more images do not fit, 16 or more at a time" in c.notes[1]


def test_every_task_has_its_costs():
    assert all(set(costs) == set(common.TASKS) for costs in budget.COSTS.values())
