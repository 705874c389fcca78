# SPDX-License-Identifier: Apache-2.0
"""Downloads the images of a list: `python -m tools.data.fetch --metadata FILES --output DIR`.

The list is what DataComp and LAION publish: parquet files with addresses, captions, sizes and
scores. Rows are chosen first; img2dataset, a program of its own, fetches them into DIR, and `python
-m tools.data.ingest --input DIR` makes a store of that. While it runs, every finished shard says
what to expect of the whole. A stopped run goes on when the command is given again. What did not
arrive is in DIR/failures.parquet; --retry tries again what another try may bring, into DIR/retry-1
and so on.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet

from input_pipeline import files
from mtv_jax.core.errors import UserError, report_user_errors
from tools.data import (
    conditions,
    download,
    failures,
    fetch_reasons,
    metadata,
    parallel,
    resolver,
)

_LIST_SHARDS = 100  # img2dataset holds one list in memory
_MIN_YIELD = 0.2
_RULES = ("missing", "min_side", "max_side", "max_aspect", "rows_per_shard", "take", "seed")
_MAX_ENLARGE_ASPECT = 1024 / 224  # what ingest can store with both limits of its sides


def fetch(arguments: argparse.Namespace) -> download.Tally:
    """Makes the lists of DIR unless they are there, and fetches them."""
    folder: pathlib.Path = arguments.output
    rules = _rules(arguments)
    plan = _read_plan(folder)
    if plan is None:
        plan = _prepare(folder, arguments, rules)
    elif plan["rules"] != json.loads(json.dumps(rules)):
        changed = [name for name in rules if plan["rules"].get(name) != rules[name]]
        raise UserError(
            f"{folder} was begun with another {', '.join(changed) or 'version of this tool'} (see "
            f"{_plan_path(folder)}): choose another --output, or delete that folder"
        )
    return _run(folder, plan, arguments)


def retry(arguments: argparse.Namespace) -> download.Tally:
    """Fetches once more what failed for a passing reason in the latest pass of DIR."""
    folder: pathlib.Path = arguments.output
    first = _read_plan(folder)
    if first is None:
        raise UserError(f"--retry: nothing was fetched into {folder} yet")
    passes = [folder, *_retries(folder)]
    latest = passes[-1]
    if not (latest / failures.LEDGER).exists():
        if latest == folder:
            raise UserError(f"--retry: {folder} is not finished: fetch it first")
        return _run(latest, _read_plan(latest) or first, arguments)
    settings = download.describe(first["settings"])
    rows = failures.rows_to_retry(latest, settings.shard_rows)
    if not len(rows):
        raise UserError(f"--retry: no failure in {latest / failures.LEDGER} may pass")
    following = folder / f"retry-{len(passes)}"
    _write_lists(following, failures.chosen(latest, rows), settings.shard_rows)
    plan = {"rules": {"retry_of": latest.name}, "settings": first["settings"], "rows": len(rows)}
    _write_json(_plan_path(following), plan)
    return _run(following, plan, arguments)


def _prepare(
    folder: pathlib.Path, arguments: argparse.Namespace, rules: dict[str, Any]
) -> dict[str, Any]:
    """Chooses the rows and writes the lists of them; the plan is written last."""
    if any(folder.glob(f"*{download.STATS}")):
        raise UserError(f"{folder} holds images that this tool did not fetch: choose another")
    listed = metadata.Metadata(arguments.metadata)
    funnel = metadata.choose(listed, _wanted(arguments))
    print(funnel.table())
    rows = int(funnel.alive.sum())
    if not rows:
        raise UserError(f"no row is left of {funnel.rows_in:,}: loosen the rules")
    settings = download.Settings(
        columns=tuple(listed.kept),
        shard_rows=arguments.rows_per_shard,
        min_side=arguments.min_side,
        max_side=arguments.max_side,
        max_aspect=arguments.max_aspect,
    )
    plan = {"rules": rules, "settings": dataclasses.asdict(settings), "rows": rows}
    if not arguments.dry_run:
        tables = metadata.wanted_tables(listed, funnel.alive)
        _write_lists(folder, tables, settings.shard_rows)
        _write_json(folder / "fetch" / "funnel.json", funnel.to_json())
        _write_json(_plan_path(folder), plan)
    return plan


def _run(
    folder: pathlib.Path, plan: dict[str, Any], arguments: argparse.Namespace
) -> download.Tally:
    settings = download.describe(plan["settings"])
    program = tuple(shlex.split(arguments.img2dataset))
    if not arguments.dry_run:
        program = download.find_program(arguments.img2dataset)
    effort = download.Effort(
        program=program,
        processes=arguments.processes,
        threads=arguments.threads,
        timeout=arguments.timeout,
        retries=arguments.retries,
        min_yield=arguments.min_yield,
    )
    if arguments.dry_run:
        print(shlex.join(download.command_line(folder, settings, effort)))
        return download.tally(folder)
    _check_resolver(folder)
    found = download.download(folder, settings, effort, plan["rows"])
    counts = failures.write_ledger(folder)
    print(f"{folder}: {found.arrived:,} of {found.rows:,} images, {found.size / 1e9:,.2f} GB")
    for reason, count in counts.most_common():
        print(f"  {reason:<46}{count:>14,}")
    again = len(failures.rows_to_retry(folder, settings.shard_rows))
    ledger = folder / failures.LEDGER
    print(f"{ledger}: {counts.total():,} failures, {again:,} of them worth a --retry")
    return found


def _check_resolver(folder: pathlib.Path) -> None:
    for table in failures.lists(folder):
        complaint = resolver.complaint(resolver.hosts_of(table["url"].to_pylist()))
        if complaint:
            print(f"warning: {complaint}", file=sys.stderr)
        return


def _write_lists(folder: pathlib.Path, tables: Iterable[pyarrow.Table], shard_rows: int) -> None:
    """Writes `folder`/fetch/urls/*.parquet: whole shards each, so that rows keep their numbers."""
    urls = folder / "fetch" / "urls"
    urls.mkdir(parents=True, exist_ok=True)
    for leftover in urls.iterdir():
        leftover.unlink()
    for number, part in enumerate(_parts(tables, shard_rows * _LIST_SHARDS)):
        pyarrow.parquet.write_table(part, urls / f"{number:05d}.parquet")


def _parts(tables: Iterable[pyarrow.Table], size: int) -> Iterator[pyarrow.Table]:
    """The rows of `tables` in tables of `size` rows and a last one."""
    held: list[pyarrow.Table] = []
    for table in tables:
        held.append(table)
        while sum(map(len, held)) >= size:
            whole = pyarrow.concat_tables(held)
            yield whole.slice(0, size)
            held = [whole.slice(size)]
    if sum(map(len, held)):
        yield pyarrow.concat_tables(held)


def _retries(folder: pathlib.Path) -> list[pathlib.Path]:
    found = (folder / f"retry-{number}" for number in itertools.count(1))
    return list(itertools.takewhile(lambda path: _plan_path(path).exists(), found))


def _rules(arguments: argparse.Namespace) -> dict[str, Any]:
    """What decides which images the folder holds."""
    parts = [file for path in arguments.metadata for file in metadata.parquet_files(path)]
    return {
        "metadata": [[path.name, path.stat().st_size] for path in parts if path.exists()],
        **conditions.settings(conditions.parse(arguments)),
        **{name: getattr(arguments, name) for name in _RULES},
    }


def _wanted(arguments: argparse.Namespace) -> metadata.Wanted:
    return metadata.Wanted(
        conditions=tuple(conditions.parse(arguments)),
        missing=arguments.missing,
        min_side=arguments.min_side,
        max_aspect=arguments.max_aspect,
        take=arguments.take,
        seed=arguments.seed,
    )


def _plan_path(folder: pathlib.Path) -> pathlib.Path:
    return folder / "fetch" / "plan.json"  # img2dataset stumbles over a .json beside its own


def _read_plan(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        return json.loads(_plan_path(folder).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{_plan_path(folder)} cannot be read: delete {folder}") from error


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    files.write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.data.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--metadata", nargs="+", type=pathlib.Path, default=[], help="parquet files, or folders"
    )
    parser.add_argument("--output", required=True, type=pathlib.Path, help="folder of the tars")
    parser.add_argument("--dry_run", action="store_true", help="count, print the command, stop")
    parser.add_argument("--retry", action="store_true", help="another pass over what failed")
    conditions.add_arguments(parser)
    _add_choices(parser)
    _add_effort(parser)
    parsed = parser.parse_args(arguments)
    if bool(parsed.metadata) == parsed.retry:
        parser.error("want --metadata, or --retry without it")
    if parsed.min_yield is None:
        parsed.min_yield = 0.0 if parsed.retry else _MIN_YIELD
    for name in ("dry_run", *conditions.KINDS, *_RULES):
        if parsed.retry and getattr(parsed, name) != parser.get_default(name):
            parser.error(
                f"--{name} goes with --metadata: --retry keeps the rules of the first pass"
            )
    for name in ("rows_per_shard", "take", "processes", "threads", "timeout", "min_side"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is at least 1")
    if not (0 <= parsed.min_yield <= 1 and parsed.retries >= 0 and parsed.max_aspect >= 1):
        parser.error(
            "want --min_yield in [0, 1], --retries of 0 or more, --max_aspect of 1 or more"
        )
    if parsed.max_side and parsed.max_side < parsed.min_side:
        parser.error("--max_side is 0, or at least --min_side")
    return parsed


def _add_choices(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("images")
    group.add_argument("--min_side", type=int, default=224, help="least short side fetched")
    group.add_argument(
        "--max_side",
        type=int,
        default=1024,
        help="a longer long side is made this, which loses an EXIF rotation; 0 keeps files as "
        "they come (default 1024)",
    )
    group.add_argument(
        "--max_aspect",
        type=float,
        default=_MAX_ENLARGE_ASPECT,
        help="greatest ratio of the sides (default 1024/224)",
    )
    group.add_argument("--take", type=int, help="of the rows left so many, at random")
    group.add_argument("--seed", type=int, default=0, help="of --take; fewer rows nest in more")
    group.add_argument("--rows_per_shard", type=int, default=10_000)


def _add_effort(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("effort (may change when a run goes on)")
    group.add_argument(
        "--img2dataset", default="img2dataset", metavar="COMMAND", help="what starts it"
    )
    group.add_argument("--processes", type=int, default=parallel.available_cores())
    group.add_argument("--threads", type=int, default=128, help="downloads at a time, a process")
    group.add_argument("--timeout", type=int, default=10, help="seconds for one download")
    group.add_argument("--retries", type=int, default=1, help="at once, of a failed download")
    group.add_argument(
        "--min_yield",
        type=float,
        help=f"stop when a smaller share arrives (default {_MIN_YIELD:g}, with --retry 0)",
    )


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parsed = _parse(arguments)
    found = retry(parsed) if parsed.retry else fetch(parsed)
    if not parsed.dry_run and not found.arrived:
        reasons = fetch_reasons.top(found.reasons, found.rows)
        raise UserError(f"no image arrived: {reasons}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
