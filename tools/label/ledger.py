# SPDX-License-Identifier: Apache-2.0
"""Whose labels a store holds, and on what terms: read from the manifests of its sidecars."""

import pathlib
from typing import NamedTuple

from input_pipeline import manifests


class Entry(NamedTuple):
    """One sidecar.

    `commercial` is None where the manifest does not say: made by hand, or by another tool.
    """

    sidecar: str
    maker: str
    licence: str
    commercial: bool | None

    def __str__(self) -> str:
        use = {True: "commercial use allowed", False: "NOT for commercial use", None: "unknown"}
        return f"{self.sidecar}: {self.maker}, {self.licence}: {use[self.commercial]}"


def entries(path: pathlib.Path) -> list[Entry]:
    """Every finished sidecar of a store."""
    found = []
    for sidecar in manifests.sidecars_in(path):
        provenance = manifests.read_sidecar(path, sidecar)["provenance"]
        maker = str(provenance.get("expert") or provenance.get("tool") or "unknown maker")
        licence = str(provenance.get("licence") or "licence not recorded")
        found.append(
            Entry(sidecar, maker.rpartition(":")[2], licence, provenance.get("commercial"))
        )
    return found
