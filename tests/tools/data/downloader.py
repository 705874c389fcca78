# SPDX-License-Identifier: Apache-2.0
"""Stands in for img2dataset, without the net: run as a program with the flags that fetch gives.

It writes what img2dataset 1.47 writes: member names, columns and their order, keys of statistics.
`file:` addresses are copied. Others fail with the message that is their path; `/sleep` sleeps.
"""

import collections
import hashlib
import io
import json
import math
import pathlib
import sys
import tarfile
import time
import urllib.parse
import urllib.request

import pyarrow
import pyarrow.parquet
from PIL import Image

_OWN = {
    "key": pyarrow.string(),
    "status": pyarrow.string(),
    "error_message": pyarrow.string(),
    "width": pyarrow.int32(),
    "height": pyarrow.int32(),
    "original_width": pyarrow.int32(),
    "original_height": pyarrow.int32(),
    "exif": pyarrow.string(),
    "sha256": pyarrow.string(),
}


def fetch(row, flags):
    """(image, what went wrong, whether that was the download)."""
    parsed = urllib.parse.urlsplit(row["url"])
    if parsed.scheme != "file":
        if parsed.path == "/sleep":
            time.sleep(60)
        return None, urllib.parse.unquote(parsed.path[1:]), True
    data = pathlib.Path(parsed.path).read_bytes()
    if "verify_hash" in flags and hashlib.sha256(data).hexdigest() != row["sha256"]:
        return None, "hash mismatch", True
    if min(Image.open(io.BytesIO(data)).size) < int(flags["min_image_size"]):
        return None, "image too small", False
    return data, None, False


def one_sample(row, key, flags):
    """(image or None, its metadata)."""
    data, message, at_download = fetch(row, flags)
    found = {**row, **dict.fromkeys(_OWN), "key": key, "error_message": message}
    found["status"] = "failed_to_download" if at_download else "failed_to_resize"
    if data:
        width, height = Image.open(io.BytesIO(data)).size
        found |= {"status": "success", "exif": "{}", "width": width, "height": height}
        found |= {"original_width": width, "original_height": height}
        found["sha256"] = hashlib.sha256(data).hexdigest()
    return data, found


def write_shard(output, number, table, flags):
    start = time.time()
    digits = math.ceil(math.log10(int(flags["number_sample_per_shard"])))
    samples = [
        one_sample(row, f"{10**digits * number + place:0{digits + 5}d}", flags)
        for place, row in enumerate(table.to_pylist())
    ]
    with tarfile.open(output / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for data, found in samples:
            text = (found.get("caption") or "").encode()
            for suffix, content in (
                ("jpg", data),
                ("json", json.dumps(found).encode()),
                ("txt", text),
            ):
                if data:
                    member = tarfile.TarInfo(f"{found['key']}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    schema = table.schema
    for name, kind in _OWN.items():
        if name not in schema.names:
            schema = schema.append(pyarrow.field(name, kind))
    rows = pyarrow.Table.from_pylist([found for _, found in samples], schema=schema)
    pyarrow.parquet.write_table(rows, output / f"{number:05d}.parquet")
    counts = collections.Counter(found["status"] for _, found in samples)
    stats = {
        "count": len(samples),
        "successes": counts["success"],
        "failed_to_download": counts["failed_to_download"],
        "failed_to_resize": counts["failed_to_resize"],
        "duration": time.time() - start,
        "start_time": start,
        "end_time": time.time(),
        "status_dict": collections.Counter(f["error_message"] or "success" for _, f in samples),
    }
    (output / f"{number:05d}_stats.json").write_text(json.dumps(stats, indent=4))


def main():
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    output, size = pathlib.Path(flags["output_folder"]), int(flags["number_sample_per_shard"])
    done = {int(path.name.split("_")[0]) for path in output.glob("*.json")}
    with open(output / "fetch" / "calls", "a") as calls:
        calls.write(f"{sorted(done)}\n")
    number = 0
    for path in sorted(pathlib.Path(flags["url_list"]).glob("*.parquet")):
        table = pyarrow.parquet.read_table(path)
        names = {"text": "caption", flags["url_col"]: "url"}
        table = table.rename_columns([names.get(name, name) for name in table.column_names])
        for start in range(0, len(table), size):
            if number not in done:
                write_shard(output, number, table.slice(start, size), flags)
            number += 1


if __name__ == "__main__":
    main()
