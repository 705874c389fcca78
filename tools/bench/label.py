# SPDX-License-Identifier: Apache-2.0
"""What labelling costs, by arithmetic and as measured on this machine's processor.

    python -m tools.bench.label [--parts flops,host,driver,bytes] [--step_seconds 2]

flops counts the operations of the experts' networks in their published sizes, and says how many
images an hour they allow on an H200 at a share of its peak. host times each expert's steps beside
its network, on made JPEGs of 640x480 pixels, with processors of the published settings. driver
runs the label driver with experts that do nothing. bytes weighs what they write. No weights are
needed; all but driver need PyTorch and transformers. The tables are Markdown.
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError, closest

if TYPE_CHECKING:
    from tools.bench.label_flops import Work

_PARTS = flags.DEFINE_list("parts", ["flops", "host", "driver", "bytes"], "What to do.")
_SECONDS = flags.DEFINE_float("step_seconds", 2.0, "Time for each step of host.", lower_bound=0.1)

_UTILISATIONS = (0.2, 0.4)
_THREADS = (1, 2, 4)
_ROWS, _REPEATS = 512, 5
_LABELLED = 16  # rows of the store that is weighed


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    for part in _chosen(_PARTS.value):
        with tempfile.TemporaryDirectory() as folder:
            for line in part(pathlib.Path(folder)):
                print(line, flush=True)
        print()
    return 0


def _chosen(names: Sequence[str]) -> list[Callable[[pathlib.Path], list[str]]]:
    parts = {"flops": _flops, "host": _host, "driver": _driver, "bytes": _bytes}
    for name in names:
        if name not in parts:
            raise UserError(f"--parts has no part {name!r}{closest(name, parts)}")
    return [parts[name] for name in names]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]


def _flops(folder: pathlib.Path) -> list[str]:
    from tools.bench import label_flops

    del folder
    counts = label_flops.count()
    counted = table(
        ("network", "input", "parameters", "GFLOP"),
        [
            (row.network, row.input, f"{row.parameters / 1e6:.1f} M", f"{row.flops / 1e9:,.1f}")
            for row in counts
        ],
    )
    shares = [f"images/h at {share:.0%}" for share in _UTILISATIONS]
    allowed = table(
        ("an image", "GFLOP", *shares, "published rate is", "goal is"),
        [_allowed(work) for work in label_flops.works(counts)],
    )
    return [*counted, "", *allowed]


def _allowed(work: "Work") -> list[str]:
    rates = [f"{work.hourly(share):,.0f}" for share in _UTILISATIONS]
    known = [f"{work.utilisation(rate):.1%}" if rate else "" for rate in (work.paper, work.goal)]
    return [work.name, f"{work.flops / 1e9:,.0f}", *rates, *known]


def _host(folder: pathlib.Path) -> list[str]:
    from tools.bench import label_host, label_inputs, published

    opened = label_inputs.write_store(folder / "store", _LABELLED)
    found = label_host.experts(folder, label_inputs.sample(opened), published.DEPTH_SIZES["small"])
    measured = list(label_host.time_steps(opened, found, _SECONDS.value))
    rows = [
        (step.expert, step.name, f"{1e3 * step.seconds:.2f}", f"{1 / step.seconds:,.0f}")
        for step in measured
    ]
    lines = table(("expert", "step", "ms an image", "images/s on one core"), rows)
    depth, regions, tags = (steps.expert.name for steps in found)
    goals = {"depth": (600_000, [depth]), "regions": (250_000, [regions, tags])}
    needed = []
    for labels, (hourly, names) in goals.items():
        threads, device = (
            sum(label_host.spent(measured, name, steps) for name in names)
            for steps in (label_host.ON_THREADS, label_host.ON_THE_DEVICES)
        )
        cores = f"{hourly * threads / 3600:.1f}"
        times = (f"{3.6e6 / hourly:.1f}", f"{1e3 * device:.1f}")
        needed.append((labels, f"{hourly:,}", cores, *times))
    headings = ("labels", "images/h", "cores", "ms for an image", "of them without the network")
    return [*lines, "", *table(headings, needed)]


def _driver(folder: pathlib.Path) -> list[str]:
    from tools.bench import label_driver, label_inputs

    label_inputs.write_store(folder, _ROWS)
    rates = label_driver.time_driver(folder, _THREADS, _REPEATS)
    rows = [
        ("decoded" if rate.sees else "not read", str(rate.threads), f"{rate.rows_per_s:,.0f}")
        for rate in rates
    ]
    return table(("images are", "threads", "rows/s"), rows)


def _bytes(folder: pathlib.Path) -> list[str]:
    from tools.bench import label_host, label_inputs, published

    opened = label_inputs.write_store(folder / "store", _LABELLED)
    found = label_host.experts(folder, label_inputs.sample(opened), published.DEPTH_SIZES["small"])
    weighed = label_host.bytes_on_disk(opened.path, found)
    rows = [(holder, f"{count:,.0f}") for holder, count in weighed.items()]
    return table(("holder", "bytes a row"), rows)


if __name__ == "__main__":
    cli.run(main)
