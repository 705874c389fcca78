# SPDX-License-Identifier: Apache-2.0
"""Compares an exported folder in transformers with our own encoder, on its golden inputs.

    python -m tools.export_check EXPORT

Needs PyTorch and transformers. Both models read the same pixels and ids, so the verdict is about
the models; what transformers' own image processor and tokenizer make of the raw inputs is compared
apart. The verdict goes to `parity.json` in the folder. Exit status 1 when embeddings or logits
differ by more than the tolerance, ids differ, or weights do not fit.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtv_jax.core.errors import UserError, report_user_errors

OUTPUTS = ("image_embeds", "text_embeds", "logits_per_image")


@report_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.export_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="EXPORT", help="exported folder")
    directory = pathlib.Path(parser.parse_args(argv).directory)
    _require_torch()

    from mtv_jax.interop.save import PARITY_FILE

    verdict = check(directory)
    text = json.dumps(verdict, indent=2)
    print(text)
    try:
        (directory / PARITY_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {directory / PARITY_FILE}: {error.strerror}") from error
    return 0 if verdict["status"] == "passed" else 1


def check(directory: pathlib.Path) -> dict[str, Any]:
    """The verdict on a folder, as JSON values.

    Raises:
        UserError: no complete export there.
    """
    from mtv_jax.interop import golden, load
    from mtv_jax.interop.save import TOLERANCE

    trained = load(directory)
    try:
        with np.load(directory / golden.FILE) as stored:
            arrays = dict(stored)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{directory} has no readable {golden.FILE} ({error}); export the run again"
        ) from error
    ours = golden.golden_outputs(trained, arrays)
    pixels = trained.images.pixels(arrays["resized"])
    theirs, misfits = _run_transformers(directory, pixels, arrays.get("ids"))
    preprocessing = _compare_preprocessing(directory, arrays, pixels)
    model = _largest_differences(ours, theirs)
    reproduced = _largest_differences(ours, {name: arrays[name] for name in ours})
    agree = all(d <= TOLERANCE for d in (*model.values(), *reproduced.values()))
    passed = agree and preprocessing.get("ids_equal", True) and not misfits
    return {
        "status": "passed" if passed else "failed",
        "tolerance": TOLERANCE,
        "max_abs_ours_vs_transformers": model,
        "max_abs_ours_vs_stored": reproduced,
        "weights_that_do_not_fit": misfits,
        "transformers_preprocessing": preprocessing,
        "versions": _versions(),
    }


def _require_torch() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the folder is all there is to read
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise UserError(
            f"the comparison needs PyTorch and transformers ({error}); "
            "`make test-torch` installs them, or pip install -e '.[torch]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _run_transformers(
    directory: pathlib.Path, pixels: np.ndarray, ids: np.ndarray | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Outputs by name, and the keys of weights that transformers missed or did not expect."""
    import torch
    from transformers import SiglipModel, SiglipVisionModel

    kind = SiglipVisionModel if ids is None else SiglipModel
    model, info = kind.from_pretrained(directory, output_loading_info=True)
    misfits = sorted(str(key) for keys in info.values() for key in keys)
    inputs = {"pixel_values": torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())}
    if ids is not None:
        inputs["input_ids"] = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    if ids is None:
        pooled = outputs.pooler_output
        return {"image_embeds": (pooled / pooled.norm(dim=-1, keepdim=True)).numpy()}, misfits
    return {name: outputs[name].numpy() for name in OUTPUTS}, misfits


def _compare_preprocessing(
    directory: pathlib.Path, arrays: Mapping[str, np.ndarray], pixels: np.ndarray
) -> dict[str, Any]:
    """Transformers' processors on the raw golden inputs against our pixels and ids."""
    from transformers import AutoImageProcessor, AutoTokenizer

    images = [arrays[f"image_{index}"] for index in range(len(pixels))]
    batch = AutoImageProcessor.from_pretrained(directory)(images, return_tensors="np")
    theirs = batch["pixel_values"].transpose(0, 2, 3, 1)
    verdict: dict[str, Any] = {"pixels_max_abs": float(np.abs(theirs - pixels).max())}
    if "ids" in arrays:
        tokenizer = AutoTokenizer.from_pretrained(directory)
        texts = [str(text) for text in arrays["texts"]]
        options = {"padding": "max_length", "truncation": True, "return_tensors": "np"}
        ids = tokenizer(texts, **options)["input_ids"]
        verdict["ids_equal"] = bool(np.array_equal(ids, arrays["ids"]))
    return verdict


def _largest_differences(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> dict[str, float]:
    return {name: float(np.abs(ours[name] - theirs[name]).max()) for name in theirs}


def _versions() -> dict[str, str]:
    import jax
    import torch
    import transformers

    modules = (jax, torch, transformers)
    return {module.__name__: module.__version__ for module in modules}


if __name__ == "__main__":
    sys.exit(main())
