# SPDX-License-Identifier: Apache-2.0
"""Golden values of our sigmoid contrast (`mtv_jax/objectives/sigmoid_vl.py`), from OpenCLIP's own.

    python -m tools.golden.open_clip_sigmoid --code DIR --commit SHA \\
        --output tests/golden/open_clip_sigmoid.npz

DIR is a checkout of github.com/mlfoundations/open_clip at commit SHA; of it only the class
SigLipLoss is run, on one device. Needs PyTorch. Their loss takes unit vectors and exp(τ'), which
their model makes; here both are made outside, so that the gradients compared are those of features
of any length and of the log scale τ'.
"""

import pathlib
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtv_jax.core.errors import report_user_errors
from mtv_jax.core.passes import Features
from mtv_jax.objectives.base import bind_heads
from mtv_jax.objectives.sigmoid_vl import SigmoidVL
from tools.golden.losses import Arrays, compare_and_store, context, load_module

BATCH, DIM = 7, 24
# exp(τ') is about 7, so that no pair's loss is flat and every gradient is of natural size.
LOG_SCALE, BIAS = 2.0, -1.5
ARGUMENTS = ("image", "text", "logit_scale", "logit_bias")


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    compare_and_store(argv, "open_clip_sigmoid", __doc__, run_theirs, run_ours)


def run_theirs(code: pathlib.Path) -> Arrays:
    """Their loss of random features.

    Returns:
        `image` and `text` [b, d], `logit_scale` (log space) and `logit_bias`; `loss`, and by
        argument its `gradient/…`.

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    theirs = load_module(code, "src/open_clip/loss.py", "mlfoundations/open_clip")
    import torch
    from torch.nn.functional import normalize

    features = torch.randn((2, BATCH, DIM), generator=torch.Generator().manual_seed(0))
    arguments = (*features, torch.tensor(LOG_SCALE), torch.tensor(BIAS))
    image, text, scale, bias = leaves = [x.clone().requires_grad_() for x in arguments]
    loss = theirs.SigLipLoss()(normalize(image), normalize(text), scale.exp(), bias)
    loss.backward()
    return {
        **{name: x.detach().numpy() for name, x in zip(ARGUMENTS, leaves, strict=True)},
        "loss": loss.detach().numpy(),
        **{f"gradient/{name}": x.grad.numpy() for name, x in zip(ARGUMENTS, leaves, strict=True)},
    }


def run_ours(arrays: Arrays, *, chunk: int = BATCH) -> Arrays:
    """`loss` and its gradients, of our objective, on what `run_theirs` returned.

    Args:
        arrays: features, scale and bias.
        chunk: rows of the logit matrix at a time.
    """
    objective = SigmoidVL(name="sigmoid_vl", chunk=chunk)

    def loss(arguments: dict[str, jax.Array]) -> jax.Array:
        feats = {
            objective.image_pass.id: Features(pooled=arguments["image"]),
            objective.text_pass.id: Features(pooled=arguments["text"]),
        }
        logits = {name: arguments[name] for name in ("logit_scale", "logit_bias")}
        student = bind_heads(objective.heads(), {"vl_logits": logits})
        ctx = context(feats, samples=len(arguments["image"]), heads={"student": student})
        return objective.loss(objective.project(ctx), ctx).loss

    arguments = {name: jnp.asarray(arrays[name]) for name in ARGUMENTS}
    with jax.default_matmul_precision("highest"):
        value, gradient = jax.jit(jax.value_and_grad(loss))(arguments)
    gradients = {f"gradient/{name}": np.asarray(x) for name, x in gradient.items()}
    return {"loss": np.asarray(value), **gradients}


if __name__ == "__main__":
    sys.exit(main())
