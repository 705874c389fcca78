# SPDX-License-Identifier: Apache-2.0
"""RAM++, the image tagger, for inference in PyTorch (arXiv 2310.15200).

A Swin-L (arXiv 2103.14030) makes image tokens. Each tag has 51 written descriptions; the pooled
image token weighs their embeddings, and the weighted mean is the tag's query. Two BERT layers
without self-attention, as in Query2Label (arXiv 2107.10834), let the queries read the image tokens;
a last linear layer turns each query into one logit.

Parameters have the names and shapes of the published checkpoint, `label_embed` and `LayerNorm`
included. What that holds besides (position indices, window masks) is computed here.
"""

import dataclasses
import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.label.experts.ram_plus_files import TagList

PATCH_SIZE = 4
MLP_RATIO = 4
TEXT_DIM = 512  # of a description's embedding, by CLIP's text tower
DESCRIPTIONS = 51  # per tag
DECODER_LAYERS = 2
_BETWEEN_REGIONS = -100.0  # added to attention scores, as the network was trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the network; the defaults are the published ones.

    Each stage after the first halves the grid of patches and doubles `embed_dim`; every grid is a
    whole number of windows.
    """

    image_size: int = 384
    window_size: int = 12
    embed_dim: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (6, 12, 24, 48)
    decoder_dim: int = 768
    decoder_heads: int = 4


class RamPlus(nn.Module):
    """The network with the tags it knows, in `tags`."""

    def __init__(self, tags: TagList, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        self.tags = tags
        self.visual_encoder = Swin(shape)
        self.image_proj = nn.Linear(self.visual_encoder.norm.normalized_shape[0], TEXT_DIM)
        self.label_embed = nn.Parameter(torch.zeros(len(tags.names) * DESCRIPTIONS, TEXT_DIM))
        self.reweight_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.wordvec_proj = nn.Linear(TEXT_DIM, shape.decoder_dim)
        layers = [CrossAttentionLayer(shape) for _ in range(DECODER_LAYERS)]
        encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.tagging_head = nn.ModuleDict({"encoder": encoder})
        self.fc = nn.Linear(shape.decoder_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the tags.

        Args:
            images: [b, 3, h, w] as `preprocess` makes them.

        Returns:
            [b, tags], float32.
        """
        tokens = self.image_proj(self.visual_encoder(images))
        queries = functional.relu(self.wordvec_proj(self._reweighted(tokens[:, 0])))
        for layer in self.tagging_head["encoder"]["layer"]:
            queries = layer(queries, tokens)
        return self.fc(queries).squeeze(-1).float()

    def _reweighted(self, pooled: Tensor) -> Tensor:
        """One embedding per image and tag: [b, d] → [b, tags, d]."""
        descriptions = self.label_embed.view(-1, DESCRIPTIONS, TEXT_DIM)
        direction = pooled / pooled.norm(dim=-1, keepdim=True)
        scores = torch.einsum("bd,tkd->btk", self.reweight_scale.exp() * direction, descriptions)
        return torch.einsum("btk,tkd->btd", scores.softmax(dim=-1), descriptions)


@torch.inference_mode()
def tag(network: RamPlus, images: np.ndarray) -> list[list[tuple[str, float]]]:
    """The tags of each image, in the order of the tag list.

    Args:
        network: from `load_ram_plus`.
        images: [b, 3, h, w], stacked from `preprocess`.

    Returns:
        Per image (tag, probability) of every tag whose probability is above its own threshold.
    """
    weight = network.fc.weight
    logits = network(torch.from_numpy(images).to(device=weight.device, dtype=weight.dtype))
    names = network.tags.names
    return [
        [(names[i], float(row[i])) for i in np.flatnonzero(row > network.tags.thresholds)]
        for row in logits.sigmoid().cpu().numpy()
    ]


class Swin(nn.Module):
    """[b, 3, h, w] → [b, 1 + n, d]: the mean of the image tokens, then the tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim, side = shape.embed_dim, shape.image_size // PATCH_SIZE
        proj = nn.Conv2d(3, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.patch_embed = nn.ModuleDict({"proj": proj, "norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList()
        last = len(shape.depths) - 1
        for index, (depth, heads) in enumerate(zip(shape.depths, shape.num_heads, strict=True)):
            blocks = [
                SwinBlock(dim, WindowAttention(dim, heads, side, shape.window_size, odd=i % 2 == 1))
                for i in range(depth)
            ]
            parts: dict[str, nn.Module] = {"blocks": nn.Sequential(*blocks)}
            if index < last:
                parts["downsample"] = PatchMerging(dim)
                dim, side = 2 * dim, side // 2
            self.layers.append(nn.Sequential(OrderedDict(parts)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed["proj"](images).permute(0, 2, 3, 1)  # [b, h, w, d] from here on
        x = self.patch_embed["norm"](x)
        for stage in self.layers:
            x = stage(x)
        tokens = self.norm(x).flatten(1, 2)
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


class SwinBlock(nn.Module):
    """Attention in windows and MLP, each after a norm and beside a residual path."""

    def __init__(self, dim: int, attention: "WindowAttention") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim)
        hidden = MLP_RATIO * dim
        layers = dict(fc1=nn.Linear(dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, dim))
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class WindowAttention(nn.Module):
    """Self-attention inside square windows of the grid, with a bias for each relative position.

    In odd blocks the grid is rolled by half a window first. Windows then hold patches from both
    sides of a seam, and those do not see each other. A grid of one window is not rolled.
    """

    def __init__(self, dim: int, num_heads: int, side: int, window_size: int, *, odd: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift = window_size // 2 if odd and side > window_size else 0
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        positions = (2 * window_size - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(positions, num_heads))
        offsets = relative_positions(window_size)
        self.register_buffer("offsets", offsets, persistent=False)
        separation = seam_separation(side, window_size, self.shift)
        self.register_buffer("separation", separation, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, h, w, d] → the same."""
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        b, side, _, dim = x.shape
        size, heads = self.window_size, self.num_heads
        windows = side // size
        # Windows count as heads, so that one bias of all windows serves every image of the batch.
        qkv = self.qkv(x).view(b, windows, size, windows, size, 3, heads, dim // heads)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, b, -1, size**2, dim // heads)
        x = functional.scaled_dot_product_attention(*qkv, attn_mask=self._bias())
        x = x.view(b, windows, windows, heads, size, size, dim // heads)
        x = self.proj(x.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, side, side, dim))
        return x.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else x

    def _bias(self) -> Tensor:
        """[1, windows * heads, n, n], added to the scores."""
        bias = self.relative_position_bias_table[self.offsets].permute(2, 0, 1)
        return (bias + self.separation).flatten(0, 1)[None]


class PatchMerging(nn.Module):
    """Joins 2 × 2 neighbours: [b, h, w, d] → [b, h/2, w/2, 2d]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, dim = x.shape
        x = x.view(b, h // 2, 2, w // 2, 2, dim)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # the neighbour below, then the one beside
        return self.reduction(self.norm(x))


class CrossAttentionLayer(nn.Module):
    """A BERT layer whose only attention is from the queries to the image tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim, hidden = shape.decoder_dim, MLP_RATIO * shape.decoder_dim
        self.num_heads = shape.decoder_heads
        projections = dict(
            query=nn.Linear(dim, dim), key=nn.Linear(TEXT_DIM, dim), value=nn.Linear(TEXT_DIM, dim)
        )
        self.crossattention = nn.ModuleDict(
            {"self": nn.ModuleDict(projections), "output": _dense_and_norm(dim, dim)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, hidden)})
        self.output = _dense_and_norm(hidden, dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """[b, tags, d] and [b, n, TEXT_DIM] → [b, tags, d]."""
        project, output = self.crossattention["self"], self.crossattention["output"]
        q = self._heads(project["query"](queries))
        k, v = self._heads(project["key"](tokens)), self._heads(project["value"](tokens))
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        queries = output["LayerNorm"](output["dense"](attended) + queries)
        hidden = functional.gelu(self.intermediate["dense"](queries))
        return self.output["LayerNorm"](self.output["dense"](hidden) + queries)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _dense_and_norm(dim_in: int, dim: int) -> nn.ModuleDict:
    dense, norm = nn.Linear(dim_in, dim), nn.LayerNorm(dim, eps=1e-12)
    return nn.ModuleDict({"dense": dense, "LayerNorm": norm})


def relative_positions(window_size: int) -> Tensor:
    """[n, n]: for each pair of a window's n patches, its row in the table of biases."""
    place = torch.arange(window_size**2, device="cpu")
    row, column = place // window_size, place % window_size
    down = row[:, None] - row + window_size - 1
    right = column[:, None] - column + window_size - 1
    return down * (2 * window_size - 1) + right


def seam_separation(side: int, window_size: int, shift: int) -> Tensor:
    """What keeps patches apart that only the roll brought together.

    Args:
        side: of the grid, in patches.
        window_size: in patches.
        shift: how far the grid is rolled; 0 for not at all.

    Returns:
        [windows, 1, n, n] of 0 or a large negative number; without a roll [windows, 1, 1, 1] of 0.
    """
    windows = side // window_size
    if not shift:
        return torch.zeros(windows**2, 1, 1, 1, device="cpu")
    place = torch.arange(side, device="cpu")
    beyond = (place >= side - shift).long()
    region = 2 * beyond[:, None] + beyond
    region = region.view(windows, window_size, windows, window_size).transpose(1, 2)
    region = region.reshape(windows**2, 1, -1)
    return _BETWEEN_REGIONS * (region[..., :, None] != region[..., None, :]).float()
