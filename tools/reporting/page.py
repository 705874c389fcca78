# SPDX-License-Identifier: Apache-2.0
"""One HTML page of a run: everything in one file, nothing fetched, no script."""

import base64
import html
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tools.reporting import rundata
from tools.reporting.curves import Line, Points, chart
from tools.reporting.pictures import Gallery, Picture

_JPEG_QUALITY = 85
_GREY, _RED = "#888888", "#c0392b"

# The policy makes the promise checkable: a browser refuses whatever is not in the page.
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto;
 padding: 0 1em; }}
h2 {{ margin-top: 1.8em; border-bottom: 1px solid #ddd; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .15em 1em .15em 0; text-align: left; vertical-align: top; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
tr + tr {{ border-top: 1px solid #eee; }}
pre {{ background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: 13px; }}
.curves {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr));
 gap: 1em; }}
figure {{ margin: 1em 0; }} figure img {{ max-width: 100%; border: 1px solid #ddd; }}
svg {{ width: 100%; }} svg text {{ font-size: 10px; fill: #666; }}
svg .title {{ font-size: 12px; font-weight: 600; fill: #222; }}
svg .y, svg .legend {{ text-anchor: end; }} svg .x {{ text-anchor: middle; }}
svg .grid {{ stroke: #e6e6e6; }} svg polyline {{ fill: none; stroke-width: 1.6; }}
</style></head><body>
"""


def render(workdir: pathlib.Path, config: Mapping[str, Any], gallery: Gallery) -> str:
    """The page of a run directory."""
    title = f"Run {workdir.resolve().name}"
    curves = rundata.read_curves(workdir)
    sections = [
        _facts(rundata.summary_facts(workdir, config, curves)),
        "<h2>Alarms</h2>" + _alarms(rundata.read_alarms(workdir)),
        "<h2>Numbers</h2>" + _numbers(rundata.read_numbers(workdir)),
        "<h2>Curves</h2>" + _curves(curves, rundata.read_eval_curves(workdir)),
        "<h2>Pictures</h2>" + _pictures(gallery),
        "<h2>Plan</h2>" + _preformatted(rundata.read_text(workdir, "plan.txt")),
        "<h2>Environment</h2>" + _preformatted(rundata.read_text(workdir, "env.txt")),
        "<h2>Config</h2><details><summary>config.json</summary>"
        + _preformatted(json.dumps(config, indent=1, sort_keys=True))
        + "</details>",
    ]
    head = _HEAD.format(title=html.escape(title))
    return f"{head}<h1>{html.escape(title)}</h1>{''.join(sections)}</body></html>\n"


def _facts(facts: Mapping[str, str]) -> str:
    rows = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _alarms(alarms: Sequence[Mapping[str, Any]]) -> str:
    if not alarms:
        return "<p>No alarm.</p>"
    names = ("step", "objective", "problem", "measured", "remedy")
    rows = ["<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    for alarm in alarms:
        told = ", ".join(f"{name} {value:.4g}" for name, value in alarm["metrics"].items())
        texts = ({**alarm, "measured": told}[name] for name in names)
        rows.append("<tr>" + "".join(f"<td>{html.escape(str(x))}</td>" for x in texts) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def _numbers(numbers: rundata.Numbers | None) -> str:
    if numbers is None:
        return "<p>Not evaluated yet: <code>python -m mtv_jax.evaluate --workdir RUN</code>.</p>"
    rows = ["<tr><th>measure</th>" + _cells("th", ("value", "chance", "value / chance")) + "</tr>"]
    for key, entry in numbers.table.items():
        value, chance = entry["value"], entry["chance"]
        texts = (
            "–" if value is None else f"{value:.4g}",
            "–" if chance is None else f"{chance:.4g}",
            f"{value / chance:.1f}" if chance and value is not None else "–",
        )
        rows.append(f"<tr><td>{html.escape(key)}</td>{_cells('td', texts)}</tr>")
    source = f"<p>Step {numbers.step:,}, from <code>{html.escape(numbers.source)}</code>.</p>"
    return f"{source}<table>{''.join(rows)}</table>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f'<{tag} class="number">{html.escape(text)}</{tag}>' for text in texts)


def _curves(curves: Mapping[str, Points], evals: Mapping[str, Points]) -> str:
    """A chart a metric, losses first; losses with what a blind model reaches and held-out data."""
    if not curves:
        return "<p>No metrics yet.</p>"
    drawn = [key for key in curves if not key.endswith("/blind_loss")]
    drawn.sort(key=lambda key: (key != "loss" and not key.endswith("/loss"), key))
    charts = []
    for key in drawn:
        lines = [Line(label="training", points=curves[key])]
        objective = key.removesuffix("/loss")
        if objective != key:
            lines += _references(objective, curves, evals)
        charts.append(chart(key, lines))
    return f'<div class="curves">{"".join(charts)}</div>'


def _references(
    objective: str, curves: Mapping[str, Points], evals: Mapping[str, Points]
) -> list[Line]:
    blind = curves.get(f"{objective}/blind_loss", ())
    lines = [Line(label="blind", points=blind, color=_GREY, dashed=True)]
    for key, points in evals.items():
        if key.endswith(f"/{objective}"):
            lines.append(Line(label=key, points=points, color=_RED))
    return lines


def _pictures(gallery: Gallery) -> str:
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in gallery.notes)
    return "".join(map(_figure, gallery.pictures)) + notes


def _figure(picture: Picture) -> str:
    buffer = io.BytesIO()
    picture.image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(picture.caption)
    source = f"data:image/jpeg;base64,{data}"
    return f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="{source}"></figure>'


def _preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>" if text else "<p>Not recorded.</p>"
