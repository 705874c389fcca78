# SPDX-License-Identifier: Apache-2.0
"""Writes labels beside the images of a store, by expert models.

    python -m tools.label --store STORE --experts caption_phrases,owlv2,depth_anything_v2:large

With `--input` the store is made first, if it is not there, as `tools.data.ingest` makes it.
Experts run one after the other, each over the whole store; each writes a sidecar. An entry
`name:size` sets the expert's size. Settings are those of `--config`, any of which a flag changes,
such as --config.experts.owlv2.min_score=0.1. A killed run goes on when the same command is given
again; an expert whose sidecar is there is passed over.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError, closest

_CONFIG = config_flags.DEFINE_config_file("config", "configs/label.py", "Settings of experts.")
_STORE = flags.DEFINE_string("store", None, "Store to label.", required=True)
_INPUT = flags.DEFINE_string("input", None, "Images to make the store of: a folder, tars, …")
_SELECTION = flags.DEFINE_string("selection", "", "Rows to label: a selection of the store.")
_EXPERTS = flags.DEFINE_list("experts", None, "Experts, in this order.", required=True)
_DEVICE = flags.DEFINE_string("device", "", "Of PyTorch; by default cuda where there is one.")
_ENGINE = flags.DEFINE_enum("engine", "local", ["local", "ray"], "One process, or Ray's actors.")
_WORKERS = flags.DEFINE_integer("workers", None, "Actors of --engine ray.", lower_bound=1)
_THREADS = flags.DEFINE_integer(
    "threads", 0, "That read and prepare images, of each worker; 0: one a core.", lower_bound=0
)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    assert config is not None
    from input_pipeline import manifests
    from input_pipeline.licences import terms
    from tools.data import ingest
    from tools.label.jobs import Job
    from tools.label.run import label_store

    path = pathlib.Path(_STORE.value)
    engine = _engine()
    if not _EXPERTS.value:
        raise UserError(f"--experts names none; there are {', '.join(config['experts'])}")
    experts = [_expert(entry, config["experts"]) for entry in _EXPERTS.value]
    missing = _INPUT.value and not (path / manifests.BASE).exists()
    if _INPUT.value and not missing:
        print(f"{path} is there: --input is not read", flush=True)
    if missing and (status := ingest.main(["--input", _INPUT.value, "--output", str(path)])):
        return status
    for expert in experts:
        job = Job(
            path=path,
            expert=expert,
            device=_DEVICE.value,
            threads=_THREADS.value,
            selection=_SELECTION.value,
        )
        print(label_store(job, engine), flush=True)
    print("labels of this store:")
    for entry in terms(path):
        print(f"  {entry}")
    return 0


def _engine() -> Any:
    if _ENGINE.value == "local":
        if _WORKERS.value is not None:
            raise UserError("--workers is of --engine ray: give that, or leave --workers out")
        return None
    from tools.label.ray_engine import RayEngine

    return RayEngine(_WORKERS.value or 1, gpus=0 if _DEVICE.value == "cpu" else 1)


def _expert(entry: str, specs: Mapping[str, Any]) -> Any:
    """The expert that `name` or `name:size` means."""
    from mtv_jax.core.config import resolve

    name, _, size = entry.partition(":")
    if name not in specs:
        raise UserError(f"no expert {name!r} in the config{closest(name, specs)}")
    spec = {**specs[name], **({"size": size} if size else {})}
    return resolve(spec, f"experts.{name}", trusted=tuple(cli.TRUST_ROOT.value), name=name)


if __name__ == "__main__":
    cli.run(main)
