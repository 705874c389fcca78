# SPDX-License-Identifier: Apache-2.0
"""Dense prediction head over four taps of a ViT (DPT, arXiv 2103.13413; MTV appendix A.2).

The configuration is Depth Anything V2's. Deviations: upsampling is half-pixel bilinear (patches
are cell-centred); the 1 × 1 convolution after each fusion runs before its upsampling (they commute,
and it sees four times fewer pixels); the output has no ReLU, under which an affine-invariant loss
can die.
Everything is float32; convolutions may use TF32 where the hardware does by default.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _conv3(features: int, name: str, *, stride: int = 1, bias: bool = True) -> nn.Conv:
    return nn.Conv(
        features,
        (3, 3),
        strides=stride,
        padding=1,
        use_bias=bias,
        kernel_init=_INIT,
        name=name,
    )


def _conv1(features: int, name: str) -> nn.Dense:
    """1 × 1, as a matrix product: as a convolution its gradient is slow on CPUs."""
    return nn.Dense(features, kernel_init=_INIT, name=name)


def _upsample(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b h2 w2 c"]:
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[-1]), "bilinear")


class Unfold(nn.Module):
    """A transposed convolution whose stride is its kernel: every pixel becomes `factor` squared."""

    factor: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        b, h, w, c = x.shape
        kernel = self.param("kernel", self._init, (c, self.factor, self.factor, c))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        out = jnp.einsum("bhwi,iklo->bhkwlo", x, kernel)
        return out.reshape(b, h * self.factor, w * self.factor, c) + bias

    def _init(self, key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        bound = math.prod(shape[1:]) ** -0.5  # what PyTorch takes for the layer's fan-in
        return jax.random.uniform(key, shape, dtype, -bound, bound)


class ResidualConvs(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
        out = _conv3(x.shape[-1], "conv1")(nn.relu(x))
        return x + _conv3(x.shape[-1], "conv2")(nn.relu(out))


class DPT(nn.Module):
    """Four taps, shallow to deep, to one map.

    Attributes:
        features: width of the fusion path.
        channels: width of each tap after its projection.
    """

    features: int = 128
    channels: tuple[int, int, int, int] = (96, 192, 384, 768)

    @nn.compact
    def __call__(
        self, taps: Sequence[Float[Array, "b n d"]], *, grid: int, size: int
    ) -> Float[Array, "b h w"]:
        """The map at `size` × `size` pixels, of taps on a `grid` × `grid` of patches."""
        laterals = [self._lateral(i, tap, grid) for i, tap in enumerate(taps)]
        x = None
        for level in (3, 2, 1, 0):
            lateral = laterals[level]
            if x is not None:  # the coarsest level has nothing to add to
                lateral = x + ResidualConvs(name=f"lateral_residual{level}")(lateral)
            x = ResidualConvs(name=f"residual{level}")(lateral)
            x = _conv1(self.features, f"fuse{level}")(x)
            shape = laterals[level - 1].shape if level else (0, 2 * x.shape[1], 2 * x.shape[2])
            x = _upsample(x, shape[1], shape[2])
        assert x is not None
        x = _upsample(_conv3(self.features // 2, "out1")(x), size, size)
        x = nn.relu(_conv3(32, "out2")(x))
        return _conv1(1, "out3")(x)[..., 0]

    def _lateral(self, level: int, tap: Float[Array, "b n d"], grid: int) -> Array:
        """Tap `level` at 4, 2, 1 or 1/2 times the patch grid, `features` wide."""
        x = tap.astype(jnp.float32).reshape(tap.shape[0], grid, grid, tap.shape[-1])
        x = _conv1(self.channels[level], f"project{level}")(x)
        if level < 2:
            x = Unfold(factor=(4, 2)[level], name=f"resize{level}")(x)
        elif level == 3:
            x = _conv3(self.channels[level], f"resize{level}", stride=2)(x)
        return _conv3(self.features, f"lateral{level}", bias=False)(x)
