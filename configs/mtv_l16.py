# SPDX-License-Identifier: Apache-2.0
"""MTV ViT-L/16 at 256 px.

python -m mtv_jax.train --config configs/mtv_l16.py:tasks=vl,scale=100m --workdir runs/l16 \
    --config.input.stores.train.path=STORE --config.input.tokenizer=c4_en/sentencepiece.model
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The published recipe; `tasks=vl+depth`, `scale=10m|50m|100m`.

    `chips=1,hours=24,chip=rtx4090` derives a smaller one (configs/budget.py).
    """
    return common.published(arg, tower="L", image_size=256)
