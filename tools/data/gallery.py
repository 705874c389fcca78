# SPDX-License-Identifier: Apache-2.0
"""Images with their labels as one HTML file: `python -m tools.data.gallery STORE --output g.html`.

The file needs no network and no script. Every row has its picture with the boxes of each sidecar
(point at one to see it alone), captions, tags, rasters in colours, and the reason where a sidecar
has nothing for it. Above are the counts of the store and, by sidecar, expert, licence and funnel.
"""

import argparse
import base64
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

import cv2
import numpy as np

from input_pipeline import files
from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.fields import Field
from mtv_jax.core.progress import Progress
from tools.data.gallery_rows import Gallery, Labels, Raster, Region, Row, Summary

_SIDE = 320
_QUALITY = 75
_COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45")
_DASHES = ("none", "6 3", "2 2", "9 3 2 3")  # by sidecar
_LEGEND_STEPS = 9

_STYLE = """
:root { color-scheme: light dark; --back: #fafafa; --card: #fff; --ink: #1a1a1a; --dim: #666;
  --line: #ddd; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --back: #121212; --card: #1e1e1e; --ink: #eee;
  --dim: #aaa; --line: #333; --bad: #ff8a80; } }
body { margin: 1rem; background: var(--back); color: var(--ink);
  font: 14px/1.4 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px;
  overflow-wrap: anywhere; content-visibility: auto; contain-intrinsic-size: 340px 520px; }
svg, img { max-width: 100%; height: auto; display: block; }
.key { color: var(--dim); font-size: 12px; }
.bad { color: var(--bad); }
.tag { border: 1px solid var(--line); border-radius: 9px; padding: 0 6px; display: inline-block; }
.box rect { fill: transparent; stroke-width: 2; }
.box text { font: 11px sans-serif; fill: #fff; paint-order: stroke; stroke: #000;
  stroke-width: 3px; }
svg:hover .box:not(:hover) { opacity: 0.2; }
.box:hover rect { stroke-width: 4; }
figure { margin: 6px 0; display: inline-block; vertical-align: top; }
figcaption, .side { color: var(--dim); font-size: 12px; }
.legend { display: inline-block; width: 6em; height: 0.7em; vertical-align: middle; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(gallery: Gallery, rows: Sequence[int]) -> Iterator[str]:
    """The file in parts.

    Args:
        gallery: the store.
        rows: global rows to show.
    """
    base = gallery.base
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(base.name)}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{escape(base.name)}</h1><p>{base.num_rows:,} rows in "
        f"{len(base.shard_rows):,} shards; {len(rows):,} of them below.</p><ul>"
    )
    for summary in gallery.summaries():
        yield f"<li>{escape(_summary_line(summary, base.num_rows))}</li>"
    yield "</ul></header><main>\n"
    progress = Progress("gallery", len(rows), unit="rows")
    for number, row in enumerate(rows):
        yield _article(gallery.read(row), row)
        progress.show(number + 1)
    progress.finish(len(rows))
    yield "</main></body></html>\n"


def _summary_line(summary: Summary, rows: int) -> str:
    parts = [str(summary.terms)]
    if summary.labelled is not None:
        parts.append(f"{summary.labelled:,} of {rows:,} rows labelled")
    parts += [f"without: {_counts(summary.rejected)}"] if summary.rejected else []
    parts += [f"left out: {_counts(summary.dropped)}"] if summary.dropped else []
    return "; ".join(parts)


def _counts(counts: Mapping[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {count:,}" for reason, count in largest)


def _article(row: Row, number: int) -> str:
    parts = ["<article>"]
    if row.image is None:
        parts.append(f'<p class="bad">{escape(row.fault)}</p>')
    else:
        parts.append(_picture(row.image, row.labels))
    parts += [f'<p class="caption">{escape(caption)}</p>' for caption in row.captions]
    for labels in row.labels:
        parts.append(_labels(labels))
    place = f"row {number} (shard {row.place.shard}, row {row.place.row})"
    parts.append(f'<div class="key">{escape(row.key)} · {place}</div></article>\n')
    return "".join(parts)


def _picture(image: np.ndarray, labels: Iterable[Labels]) -> str:
    small = _shrunk(image)
    height, width = small.shape[:2]
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<image href="{_jpeg(small)}" width="{width}" height="{height}"/>'
    ]
    for holder, each in enumerate(labels):
        dash = _DASHES[holder % len(_DASHES)]
        for number, region in enumerate(each.regions):
            look = f'stroke="{_COLORS[number % len(_COLORS)]}" stroke-dasharray="{dash}"'
            parts.append(_box(region, each.sidecar, (width, height), look))
    return "".join([*parts, "</svg>"])


def _box(region: Region, sidecar: str, size: tuple[int, int], look: str) -> str:
    left, top, right, bottom = np.array(region.box) * np.tile(size, 2)
    text = escape(_with_score(region))
    return (
        f'<g class="box"><title>{escape(sidecar)}: {text}</title>'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}" {look}/>'
        f'<text x="{left + 3:.1f}" y="{top + 12:.1f}">{text}</text></g>'
    )


def _with_score(region: Region) -> str:
    score = "" if region.score is None else f"{region.score:.2f}"
    return f"{region.phrase} {score}".strip()


def _labels(labels: Labels) -> str:
    parts = [f'<div><span class="side">{escape(labels.sidecar)}</span> ']
    if labels.missing:
        parts.append(f'<span class="bad">{escape(labels.missing)}</span>')
    elif labels.regions:
        parts.append(f"{len(labels.regions)} boxes")
    parts += [f'<span class="tag">{escape(tag)}</span> ' for tag in labels.tags]
    parts += [_figure(raster) for raster in labels.rasters]
    return "".join([*parts, "</div>"])


def _figure(raster: Raster) -> str:
    small = _shrunk(raster.pixels)
    picture = (
        f'<img src="{_jpeg(small)}" width="{small.shape[1]}" height="{small.shape[0]}" alt="">'
    )
    return f"<figure>{picture}<figcaption>{_legend(raster.field)}</figcaption></figure>"


def _legend(field: Field) -> str:
    unit = escape(field.unit)
    if field.codec == "image" or field.resample == "nearest":
        return f"{escape(field.name)} {unit}"
    ramp = np.linspace(0, 255, _LEGEND_STEPS).astype(np.uint8)[:, None]
    colors = cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO)[:, 0, ::-1].tolist()
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors)
    low, high = ("far", "near") if field.unit.startswith("disparity") else ("small", "large")
    return (
        f'{escape(field.name)}: {low} <span class="legend" style="background: '
        f'linear-gradient(90deg, {stops})"></span> {high}'
    )


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    scale = _SIDE / max(pixels.shape[:2])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=interpolation)


def _jpeg(pixels: np.ndarray) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    data = cv2.imencode(".jpg", pixels[:, :, ::-1], quality)[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tools.data.gallery", description=__doc__)
    parser.add_argument("store", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="HTML file to write")
    parser.add_argument("--rows", type=int, default=200, help="rows to show (default: 200)")
    parser.add_argument(
        "--only",
        choices=("labelled", "rejected"),
        help="rows that at least one sidecar has labels for, or has none for",
    )
    parser.add_argument("--seed", type=int, help="draw rows at random (default: evenly spread)")
    parsed = parser.parse_args(arguments)
    if parsed.rows < 1 or (parsed.seed or 0) < 0:
        parser.error("--rows is at least 1, --seed at least 0")
    gallery = Gallery(parsed.store)
    rows = gallery.choose(parsed.rows, only=parsed.only, seed=parsed.seed)
    page = "".join(write_page(gallery, rows)).encode(errors="replace")
    try:
        files.write_atomically(parsed.output, page)
    except OSError as error:
        raise UserError(f"cannot write {parsed.output}: {error.strerror}") from error
    print(f"{parsed.output}: {len(rows):,} rows, {len(page) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
