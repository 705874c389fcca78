# SPDX-License-Identifier: Apache-2.0
"""An expert over a whole store on this machine."""

from mtv_jax.core.progress import Progress
from tools.label import driver
from tools.label.driver import Job, ShardReport


def label_store(job: Job) -> str:
    """Labels what is missing, makes it a sidecar, and says in words what came of it.

    Raises:
        UserError: columns, weights or packages that are missing, or other settings were begun.
    """
    base = job.opened()
    if job.expert.sidecar in base.sidecars:
        return f"{job.expert.name}: {job.path} has a sidecar {job.expert.sidecar} already"
    labeller = job.expert.load(job.device)
    driver.begin(job, labeller.digest)
    reports = [driver.finished(job, shard) for shard in range(len(base.shard_rows))]
    done = sum(report.rows for report in reports if report)
    progress = Progress(job.expert.name, base.num_rows, unit="images")
    progress.skip(done)

    def poll(rows: int) -> None:
        nonlocal done
        done += rows
        progress.show(done)

    for shard, report in enumerate(reports):
        if report is None:
            driver.label_shard(job, labeller, shard, poll)
    progress.finish(done)
    return summary(job, driver.commit(job, labeller.digest))


def summary(job: Job, report: ShardReport) -> str:
    """What became of every image."""
    rejected = sum(report.rejected.counts.values())
    lines = [
        f"{job.path}: sidecar {job.expert.sidecar} by {job.expert.name} "
        f"(licence of the labels: {job.expert.licence.name})",
        f"rows {report.rows:,}: {report.labelled:,} labelled, {rejected:,} without labels",
    ]
    for reason, count in report.rejected.counts.items():
        lines.append(f"without, {reason}: {count:,}")
        lines += [f"  {example}" for example in report.rejected.examples[reason]]
    return "\n".join(lines)
