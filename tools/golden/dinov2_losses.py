# SPDX-License-Identifier: Apache-2.0
"""Golden values of our self-supervised losses, from DINOv2's own: head, DINO, iBOT and KoLeo.

    python -m tools.golden.dinov2_losses --code DIR --commit SHA \\
        --output tests/golden/dinov2_losses.npz

DIR is a checkout of github.com/facebookresearch/dinov2 at commit SHA; of it only the classes
DINOHead, DINOLoss, iBOTPatchLoss and KoLeoLoss are run, the second and third with the centre, not
with Sinkhorn-Knopp. Needs PyTorch, not xFormers. DINO and iBOT go two steps, so that the second has
a centre that moved and another temperature. Two things differ and are seen to here:

* DINOLoss adds the means of the crops up, ours is the mean over crops: theirs is divided by CROPS.
* KoLeo's distances have other epsilons: ours √(d² + 1e-12) and at least 1e-4, theirs
  ‖x - y + 1e-8‖ + 1e-8. Two vectors 1e-3 apart, as in the case "koleo_near", can tell.
"""

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mtv_jax.core.errors import report_user_errors
from mtv_jax.core.passes import Features
from mtv_jax.nn.prototypes import ProtoHead
from mtv_jax.objectives.base import bind_heads
from mtv_jax.objectives.base_prototypes import PrototypeObjective
from mtv_jax.objectives.koleo import KoLeo
from mtv_jax.objectives.masked_pred import MaskedPred
from mtv_jax.objectives.self_distill import SelfDistill
from tools.golden.losses import Arrays, compare_and_store, context, load_module

# Of a hundred seeds, the one whose nearest neighbours lead the second nearest most: 0.03 in cosine.
SEED = 26
DIM = 24
HEAD = {"prototypes": 48, "hidden": 32, "bottleneck": 16}
BATCH, CROPS, PATCHES, KOLEO_GROUPS, KOLEO_SIZE = 5, 6, 16, 2, 10
STUDENT_TEMP, TEACHER_TEMPS, MOMENTUM = 0.1, (0.04, 0.07), 0.9
LAYERS = {"mlp.0": "fc1", "mlp.2": "fc2", "mlp.4": "fc3"}


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    compare_and_store(argv, "dinov2_losses", __doc__, run_theirs, run_ours)


def run_theirs(code: pathlib.Path) -> Arrays:
    """Their head and losses on random weights and features.

    Returns:
        Inputs: weights "student/…" and "teacher/…" by our parameter paths; "head/x" and
        "head/cotangent"; of "dino" and "ibot" "…/students" and "…/teachers", [2, b, …], and
        "ibot/patch_mask"; "koleo/x" and "koleo_near/x", [g, n, d]. Everything else is results.

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    head, dino, ibot, koleo = (
        load_module(code, f"dinov2/{path}.py", "facebookresearch/dinov2")
        for path in (
            "layers/dino_head",
            "loss/dino_clstoken_loss",
            "loss/ibot_patch_loss",
            "loss/koleo_loss",
        )
    )
    import torch

    generator = torch.Generator().manual_seed(SEED)
    student, teacher = (_random_head(head.DINOHead, generator) for _ in range(2))
    order = torch.rand((BATCH, PATCHES), generator=generator).argsort(dim=1)
    inputs = {
        "head/x": torch.randn((BATCH, DIM), generator=generator),
        "head/cotangent": torch.randn((BATCH, HEAD["prototypes"]), generator=generator),
        "dino/students": torch.randn((2, BATCH, CROPS, DIM), generator=generator),
        "dino/teachers": torch.randn((2, BATCH, DIM), generator=generator),
        "ibot/students": torch.randn((2, BATCH, PATCHES, DIM), generator=generator),
        "ibot/teachers": torch.randn((2, BATCH, PATCHES, DIM), generator=generator),
        "ibot/patch_mask": order < PATCHES // 2,
        **_koleo_inputs(generator),
    }
    setting = (HEAD["prototypes"], STUDENT_TEMP, MOMENTUM)
    steps = {
        "dino": _dino_step(dino.DINOLoss(*setting)),
        "ibot": _ibot_step(ibot.iBOTPatchLoss(*setting), inputs["ibot/patch_mask"]),
    }
    results = [_run_head(student, inputs)]
    results += [_two_steps(name, step, student, teacher, inputs) for name, step in steps.items()]
    results += [_run_koleo(name, koleo.KoLeoLoss(), inputs) for name in ("koleo", "koleo_near")]
    arrays = {name: x.numpy() for name, x in inputs.items()}
    for who, module in (("student", student), ("teacher", teacher)):
        arrays.update(_our_layout(who, dict(module.named_parameters())))
    return {**arrays, **{name: x for result in results for name, x in result.items()}}


def run_ours(arrays: Arrays) -> Arrays:
    """Every result, of our head and objectives, on what `run_theirs` returned."""
    setting = {
        **HEAD,
        "student_temp": STUDENT_TEMP,
        "teacher_temps": TEACHER_TEMPS,
        "temp_warmup": 1.0,
        "centre_momentum": MOMENTUM,
    }
    with jax.default_matmul_precision("highest"):
        return {
            **_our_head(arrays),
            **_our_two_steps(SelfDistill(name="dino", **setting), arrays),
            **_our_two_steps(MaskedPred(name="ibot", **setting), arrays),
            **_our_koleo("koleo", arrays),
            **_our_koleo("koleo_near", arrays),
        }


def _random_head(build: Callable[..., Any], generator: Any) -> Any:
    """Their head with weights of natural scale, and gains from ½ to 2."""
    import torch

    head = build(
        DIM, HEAD["prototypes"], hidden_dim=HEAD["hidden"], bottleneck_dim=HEAD["bottleneck"]
    )
    with torch.no_grad():
        for name, weight in head.named_parameters():
            if name == "last_layer.weight_g":
                weight.uniform_(0.5, 2.0, generator=generator)
            else:
                std = weight.shape[1] ** -0.5 if weight.dim() > 1 else 0.1
                weight.normal_(std=std, generator=generator)
    return head


def _koleo_inputs(generator: Any) -> dict[str, Any]:
    """Vectors of any length; of "koleo_near" each of the second half is near one of the first."""
    import torch

    shape = (2, KOLEO_GROUPS, KOLEO_SIZE, DIM)
    far, near = 0.1 * torch.randn(shape, generator=generator)  # short, for large gradients
    first = near[:, : KOLEO_SIZE // 2]
    second = 2 * (first + 1e-3 * near[:, KOLEO_SIZE // 2 :])
    return {"koleo/x": far, "koleo_near/x": torch.cat([first, second], dim=1)}


def _run_head(head: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    x = inputs["head/x"].clone().requires_grad_()
    scores = head(x)
    (scores * inputs["head/cotangent"]).sum().backward()
    gradient = {"head/gradient/x": x.grad.numpy(), **_gradients("head/gradient", head)}
    return {"head/scores": scores.detach().numpy(), **gradient}


def _dino_step(loss: Any) -> Callable[..., Any]:
    """One step of DINO: the loss of scores, and the centre after it."""

    def step(student: Any, teacher: Any, temp: float) -> tuple[Any, Any]:
        targets = loss.softmax_center_teacher(teacher, temp)
        value = loss(student.unbind(dim=1), [targets]) / CROPS  # theirs is a sum over crops
        loss.update_center(teacher)
        loss.apply_center_update()
        return value, loss.center.flatten()

    return step


def _ibot_step(loss: Any, patch_mask: Any) -> Callable[..., Any]:
    """One step of iBOT; as in their training, masked tokens of all images are one list [1, n]."""

    def step(student: Any, teacher: Any, temp: float) -> tuple[Any, Any]:
        masked = teacher[patch_mask][None]
        (targets,) = loss.softmax_center_teacher(masked, temp)
        value = loss.forward_masked(student[patch_mask], targets, patch_mask)
        loss.update_center(masked)
        loss.apply_center_update()
        return value, loss.center.flatten()

    return step


def _two_steps(
    name: str, step: Callable[..., Any], student: Any, teacher: Any, inputs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Losses, centres and gradients of two steps, stacked."""
    results = []
    for i, temp in enumerate(TEACHER_TEMPS):
        student.zero_grad()
        features = inputs[f"{name}/students"][i].clone().requires_grad_()
        targets = teacher(inputs[f"{name}/teachers"][i]).detach()
        loss, centre = step(student(features), targets, temp)
        loss.backward()
        result = {
            f"{name}/loss": loss.detach().numpy(),
            f"{name}/centre": centre.numpy(),
            f"{name}/gradient/students": features.grad.numpy(),
            **_gradients(f"{name}/gradient", student),
        }
        results.append({path: x.copy() for path, x in result.items()})
    return {path: np.stack([result[path] for result in results]) for path in results[0]}


def _run_koleo(name: str, loss: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Mean over groups: theirs knows only one."""
    x = inputs[f"{name}/x"].clone().requires_grad_()
    value = sum(loss(group) for group in x) / len(x)
    value.backward()
    return {f"{name}/loss": value.detach().numpy(), f"{name}/gradient/x": x.grad.numpy()}


def _gradients(prefix: str, head: Any) -> dict[str, np.ndarray]:
    return _our_layout(prefix, {name: weight.grad for name, weight in head.named_parameters()})


def _our_layout(prefix: str, weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Their head's weights, or the gradients of these, under our paths and in our layouts."""
    weights = {name: weight.detach().numpy() for name, weight in weights.items()}
    ours = {
        f"{prefix}/directions": weights["last_layer.weight_v"],
        f"{prefix}/gains": weights["last_layer.weight_g"][:, 0],
    }
    for theirs, layer in LAYERS.items():
        ours[f"{prefix}/{layer}/kernel"] = weights[f"{theirs}.weight"].T
        ours[f"{prefix}/{layer}/bias"] = weights[f"{theirs}.bias"]
    return ours


def _our_head(arrays: Arrays) -> dict[str, np.ndarray]:
    def scores(x: jax.Array, weights: Any) -> jax.Array:
        projected = ProtoHead(**HEAD).apply({"params": weights}, x)
        return projected.prototypes.scores(projected.vectors, "float32")

    values, pull_back = jax.vjp(scores, jnp.asarray(arrays["head/x"]), _weights(arrays, "student"))
    to_x, to_weights = pull_back(jnp.asarray(arrays["head/cotangent"]))
    gradient = _flat("head/gradient", {"x": to_x, **to_weights})
    return {"head/scores": np.asarray(values), **gradient}


def _our_two_steps(objective: PrototypeObjective, arrays: Arrays) -> dict[str, np.ndarray]:
    """What `_two_steps` returns, from `project` and `loss`."""
    name, (head,) = objective.name, objective.heads()
    teacher = bind_heads(objective.heads(), {head: _weights(arrays, "teacher")})
    patches = np.nonzero(arrays["ibot/patch_mask"])[1].reshape(BATCH, -1)

    def step(leaves: dict, teachers: jax.Array, slots: Any, progress: float) -> Any:
        weights = {path: x for path, x in leaves.items() if path != "students"}
        student = bind_heads(objective.heads(), {head: weights})
        ctx = context(
            _features(objective, leaves["students"], teachers),
            samples=BATCH,
            heads={"student": student, "ema": teacher},
            inputs={"ibot/patches": jnp.asarray(patches)},
            slots=slots,
            progress=progress,
        )
        out = objective.loss(objective.project(ctx), ctx)
        return out.loss, out.slots

    results, slots = [], objective.slots()
    run = jax.jit(jax.value_and_grad(step, has_aux=True))
    for i, progress in enumerate((0.0, 1.0)):
        students, teachers = (arrays[f"{name}/{who}"][i] for who in ("students", "teachers"))
        leaves = {"students": students, **_weights(arrays, "student")}
        (loss, slots), gradient = run(leaves, teachers, slots, progress)
        results.append(_flat(name, {"loss": loss, **slots, "gradient": gradient}))
    return {path: np.stack([result[path] for result in results]) for path in results[0]}


def _features(
    objective: PrototypeObjective, students: jax.Array, teachers: jax.Array
) -> dict[str, Features]:
    if isinstance(objective, MaskedPred):
        student, kind = objective.masked_pass, "tokens"
    else:
        assert isinstance(objective, SelfDistill)
        student, kind = objective.local_pass, "pooled"
    return {
        student.id: Features(**{kind: students}),
        objective.teacher.id: Features(**{kind: teachers}),
    }


def _our_koleo(name: str, arrays: Arrays) -> dict[str, np.ndarray]:
    objective = KoLeo(name="koleo", group_size=KOLEO_SIZE)

    def loss(x: jax.Array) -> jax.Array:
        pooled = x.reshape(-1, DIM)
        ctx = context({objective.image_pass.id: Features(pooled=pooled)}, samples=len(pooled))
        return objective.loss(objective.project(ctx), ctx).loss

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(arrays[f"{name}/x"]))
    return {f"{name}/loss": np.asarray(value), f"{name}/gradient/x": np.asarray(gradient)}


def _weights(arrays: Arrays, who: str) -> dict[str, Any]:
    flat = {path: jnp.asarray(x) for path, x in arrays.items() if path.startswith(f"{who}/")}
    return flax.traverse_util.unflatten_dict(flat, sep="/")[who]


def _flat(prefix: str, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    flat = flax.traverse_util.flatten_dict({prefix: dict(tree)}, sep="/")
    return {path: np.asarray(x) for path, x in flat.items()}


if __name__ == "__main__":
    sys.exit(main())
