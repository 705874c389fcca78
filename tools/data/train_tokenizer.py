# SPDX-License-Identifier: Apache-2.0
"""Makes a SentencePiece tokenizer from a store's captions, for runs that have no published one.

    python -m tools.data.train_tokenizer --store STORE --output tokenizer.model --vocab_size 8000

Ids follow SigLIP's c4_en where it matters: pad 0, EOS 1, unknown 2, no BOS. Captions are
canonicalised first, as the loader does.
"""

import argparse
import io
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import sentencepiece

from input_pipeline import files
from input_pipeline.store import Store
from input_pipeline.tokenizer import canonicalize
from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.fields import CAPTION


def train_tokenizer(
    stores: Sequence[Store], *, vocab_size: int, limit: int, selection: str = ""
) -> bytes:
    """A serialised unigram model over the captions of at most `limit` rows of each store.

    Args:
        stores: where captions come from.
        vocab_size: most ids; fewer when the captions do not support so many.
        limit: rows read per store, spread evenly over it.
        selection: the rows to read; "" for all.

    Raises:
        UserError: no captions, or too small a vocabulary for their characters.
    """
    captions = [text for store in stores for text in _captions(store, limit, selection)]
    if not captions:
        paths = ", ".join(str(s.path) for s in stores)
        raise UserError(f"no captions in {paths}; a tokenizer needs some, or give a ready model")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(captions),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            normalization_rule_name="nmt_nfkc_cf",
            num_threads=1,  # more threads, other rounding: the same captions, the same model
            minloglevel=2,
        )
    except RuntimeError as error:
        cause = str(error).rpartition("] ")[2].partition(" or decrease")[0]
        raise UserError(f"--vocab_size {vocab_size}: {cause}") from error
    return model.getvalue()


def _captions(store: Store, limit: int, selection: str) -> list[str]:
    if CAPTION.name not in store.fields:
        raise UserError(f"no captions in {store.path}, only {', '.join(store.fields)}")
    rows = store.selection(selection) if selection else range(store.num_rows)
    captions: list[str] = []
    faults: list[str] = []
    indices = np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)
    for index in indices:
        at = store.locate(int(rows[index]))
        try:
            values = store.read(at.shard, at.row, [CAPTION.name]).get(CAPTION.name, [])
            captions += [text for value in values if (text := canonicalize(value.decode()))]
        except (OSError, ValueError, IndexError) as error:  # of the bytes that were written
            faults.append(str(error))
    if faults:
        print(
            f"note: {store.path}: {len(faults):,} of {len(indices):,} records cannot be read, "
            f"the first: {faults[0]}",
            file=sys.stderr,
        )
    return captions


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.data.train_tokenizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", required=True, action="append", help="store; may be repeated")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="model file to write")
    parser.add_argument("--vocab_size", type=int, default=8000, help="most ids (default 8000)")
    parser.add_argument("--limit", type=int, default=1_000_000, help="rows read per store")
    parser.add_argument("--selection", default="", help="selection to read (default: all rows)")
    args = parser.parse_args(arguments)
    for name in ("vocab_size", "limit"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is at least 1")
    stores = [Store.open(path) for path in args.store]
    model = train_tokenizer(
        stores, vocab_size=args.vocab_size, limit=args.limit, selection=args.selection
    )
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(args.output, model)
    except OSError as error:
        raise UserError(f"cannot write {args.output}: {error.strerror}") from error
    ids = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    print(f"{args.output}: {ids} ids")
    return 0


if __name__ == "__main__":
    sys.exit(main())
