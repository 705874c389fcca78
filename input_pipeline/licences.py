# SPDX-License-Identifier: Apache-2.0
"""Whose labels a store holds, and on what terms: read from the manifests of its sidecars."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from input_pipeline import manifests

_USE = {True: "commercial use allowed", False: "NOT for commercial use", None: "unknown"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """Those of one sidecar.

    Attributes:
        sidecar: its name.
        maker: the expert or tool.
        licence: of the maker's weights, or of what the labels were taken from.
        commercial: whether that, and all that the labels were made from, allows commercial use;
            None where it is not recorded.
        made_from: sidecars that the maker read.
        weights_sha256: of the maker; "" without any.
        settings: of the maker.
    """

    sidecar: str
    maker: str
    licence: str
    commercial: bool | None
    made_from: tuple[str, ...] = ()
    weights_sha256: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        origin = f", made from {', '.join(self.made_from)}" if self.made_from else ""
        return f"{self.sidecar}: {self.maker}, {self.licence}{origin}: {self.use}"

    @property
    def use(self) -> str:
        """`commercial` in words."""
        return _USE[self.commercial]


def terms(path: pathlib.Path, sidecars: Sequence[str] | None = None) -> list[Terms]:
    """Those of a store's sidecars, by default of all that are finished.

    Raises:
        StoreError: no finished sidecar of such a name, or a damaged manifest.
    """
    there = manifests.sidecars_in(path)
    return [_read(path, name, there) for name in (there if sidecars is None else sidecars)]


def _read(path: pathlib.Path, sidecar: str, there: Sequence[str]) -> Terms:
    provenance = manifests.read_sidecar(path, sidecar)["provenance"]
    maker = str(provenance.get("expert") or provenance.get("tool") or "unknown maker")
    sources = set(dict(provenance.get("reads") or {}).values())
    made_from = tuple(sorted(sources.intersection(there)))
    verdicts = [provenance.get("commercial")]
    others = [name for name in there if name != sidecar]  # what was made anew may go in circles
    verdicts += [_read(path, source, others).commercial for source in made_from]
    if sources - {*there, "images"}:
        verdicts.append(None)  # what it was made from has been removed
    commercial = False if False in verdicts else None if None in verdicts else True
    return Terms(
        sidecar=sidecar,
        maker=maker.rpartition(":")[2],
        licence=str(provenance.get("licence") or "licence not recorded"),
        commercial=commercial,
        made_from=made_from,
        weights_sha256=str(provenance.get("weights_sha256") or ""),
        settings=dict(provenance.get("settings") or {}),
    )
