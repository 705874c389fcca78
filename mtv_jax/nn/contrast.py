# SPDX-License-Identifier: Apache-2.0
"""What sigmoid contrasts share (SigLIP, arXiv 2303.15343): unit vectors, learned scale and bias."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


class SigmoidLogits(nn.Module):
    """The learned log scale and bias of a sigmoid loss."""

    init_scale: float
    init_bias: float

    @nn.compact
    def __call__(self) -> dict[str, Float[Array, ""]]:
        """Scalars "logit_scale" (log space) and "logit_bias"."""
        scale, bias = nn.initializers.constant(math.log(self.init_scale)), self.init_bias
        return {
            "logit_scale": self.param("logit_scale", scale, ()),
            "logit_bias": self.param("logit_bias", nn.initializers.constant(bias), ()),
        }


def normalize(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x / (‖x‖ + 1e-8) in float32, with a finite gradient at zero."""
    x = x.astype(jnp.float32)
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0)) * (squared > 0)
    return x / (norm + 1e-8)


def blind_loss(count: Shaped[Array, ""]) -> Float[Array, ""]:
    """What a learned bias alone reaches over `count` pairs: about ln(count) + 1."""
    count = jnp.maximum(count, 2).astype(jnp.float32)
    return jnp.log(count) - (count - 1) * jnp.log1p(-1 / count)
