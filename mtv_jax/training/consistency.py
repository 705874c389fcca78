# SPDX-License-Identifier: Apache-2.0
"""What only shows when the parts of a config are together; each fault is a `UserError`."""

from mtv_jax.core.errors import UserError, closest
from mtv_jax.core.passes import TextView
from mtv_jax.training.model import Model


def check(
    model: Model, *, batch_size: int, devices: int, micro_batches: int, text_length: int
) -> None:
    """Checks a model against its batch and its input.

    Args:
        model: towers, objectives, views and columns.
        batch_size: of the global batch, which divides over the devices.
        devices: over which it is split.
        micro_batches: in which a device takes its samples.
        text_length: ids per caption that the loader makes.

    Raises:
        UserError: what cannot be.
    """
    _check_plan(model)
    for view in model.spec.views:
        if isinstance(view, TextView):
            _check_text(model, view, text_length)
        elif view.size % model.encoder.patch_size:
            raise UserError(
                f"views.{view.name}.size {view.size} is not a multiple of the patch size "
                f"{model.encoder.patch_size}"
            )
    _check_batch(model, batch_size, devices, micro_batches)


def _check_plan(model: Model) -> None:
    """Passes read views that there are, of columns that are read."""
    views = {view.name: view for view in model.spec.views}
    columns = [field.name for field in model.spec.fields]
    for request in model.plan:
        if "/" in request.view:  # "objective/entry", which the objective derives
            continue
        if request.view not in views:
            raise UserError(
                f"a pass reads the view {request.view!r}, which the config does not define; "
                f"add views.{request.view}"
            )
        field = views[request.view].field
        if field not in columns:
            raise UserError(
                f"views.{request.view}.field is {field!r}, which no objective reads"
                f"{closest(field, columns)}"
            )


def _check_batch(model: Model, batch_size: int, devices: int, micro_batches: int) -> None:
    """The batch divides into micro-batches and groups."""
    per_device = batch_size // devices
    part, rest = divmod(per_device, micro_batches)
    if rest:
        raise UserError(
            f"micro_batches {micro_batches} does not divide the {per_device} samples per device "
            f"(batch_size {batch_size} over {devices} devices)"
        )
    for objective in model.objectives:
        if batch_size % objective.loss_group():
            raise UserError(
                f"objective {objective.name} compares groups of {objective.loss_group()}, which "
                f"do not divide batch_size {batch_size}"
            )
        if part % objective.group():
            raise UserError(
                f"objective {objective.name} works on groups of {objective.group()}, which do "
                f"not divide the {part} samples of a micro-batch on a device"
            )


def _check_text(model: Model, view: TextView, text_length: int) -> None:
    """Evaluation and export read texts as the tower was made for: training must do the same."""
    positions = model.encoder.text_length
    lengths = (view.length, view.pooling_slot + 1, text_length)
    if view.table:
        fits = view.length <= positions == view.pooling_slot + 1
    else:
        fits = set(lengths) == {positions}
    if not fits:
        raise UserError(
            f"model.text_length is {positions}, but views.{view.name} has length {view.length} "
            f"and pooling_slot {view.pooling_slot}, and input.text_length is {text_length}; set "
            "them alike, the slot one less"
        )
