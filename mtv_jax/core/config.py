# SPDX-License-Identifier: Apache-2.0
"""From a config file to checked objects: build, resolve, fingerprint, diff.

A config is an ml_collections tree of JSON-able values. Defaults live on the frozen dataclass that
receives a section, never here; a key the receiver does not know is an error that names its nearest
neighbour. Objects are named `"package.module:Class"` plus keyword arguments: no registries.
"""

import dataclasses
import hashlib
import importlib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from mtv_jax.core.errors import UserError, closest

T = TypeVar("T")

TRUSTED_ROOTS = ("mtv_jax", "input_pipeline", "tools")

# Fields that may change between two launches of one run: they move it to other hardware, paths or
# logging, or only say why (`notes`), without changing what is computed. All others are semantic.
OPERATIONAL = re.compile(
    r"^(mesh|log|checkpoint|evals|init|watchdog_seconds|micro_batches|notes)(\.|$)"
    r"|^input\.(workers|read_threads|prefetch|tokenizer)$|^input\.stores\.[^.]+\.path$"
    r"|^model\.(remat|scan_unroll|attn_impl)$|^objectives\.[^.]+\.(chunk|block_mib)$"
)


def plain(config: Any) -> Any:
    """The config as dicts, lists and scalars, as JSON would hold it."""
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(k): plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [plain(v) for v in config]
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config as {"optim.lr": 1e-3, …}; empty mappings keep their key."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, path + "."))
        else:
            flat[path] = value
    return flat


def semantic(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flattened fields that define what is computed."""
    return {k: v for k, v in flatten(config).items() if not OPERATIONAL.search(k)}


def fingerprint(config: Mapping[str, Any]) -> str:
    """Twelve hex digits over the semantic fields."""
    text = json.dumps(semantic(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines `key: old -> new` of two flattened configs."""
    absent = "(absent)"
    return [
        f"{key}: {old.get(key, absent)!r} -> {new.get(key, absent)!r}"
        for key in sorted({*old, *new})
        if old.get(key, absent) != new.get(key, absent)
    ]


def build(
    cls: type[T],
    values: Mapping[str, Any],
    where: str,
    *,
    trusted: Iterable[str] = TRUSTED_ROOTS,
) -> T:
    """An instance of the frozen dataclass `cls`, its keys and types checked.

    Args:
        cls: the receiving dataclass.
        values: keyword arguments; lists become tuples where the field is a tuple.
        where: the config path, for messages; "" at the top.
        trusted: package roots of objects that a value may name by its `type`.

    Raises:
        UserError: an unknown or missing key, a value of another type, or one below its least.
    """
    prefix = f"{where}." if where else ""
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in known:
            raise UserError(f"config has no field {prefix}{key}{closest(key, known)}")
    for name, field in known.items():
        required = field.default is dataclasses.MISSING
        if required and field.default_factory is dataclasses.MISSING and name not in values:
            raise UserError(f"config lacks {prefix}{name}; set --config.{prefix}{name}=…")
    converted = {k: _convert(v, hints[k], f"{prefix}{k}", trusted) for k, v in values.items()}
    for name, value in converted.items():
        least = known[name].metadata.get("least")
        if least is not None and value < least:
            raise UserError(f"{prefix}{name} = {value} should be at least {least}")
    return cls(**converted)


def at_least(least: float, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field of numbers that `build` refuses below `least`."""
    return dataclasses.field(default=default, metadata={"least": least})


def resolve(
    spec: Mapping[str, Any], where: str, *, trusted: Iterable[str] = TRUSTED_ROOTS, **extra: Any
) -> Any:
    """The object a spec names: `{"type": "package.module:Class", **kwargs}`.

    Raises:
        UserError: no type, an untrusted package, an unknown module or class, or bad kwargs.
    """
    values = dict(spec)
    target = values.pop("type", None)
    if not isinstance(target, str) or ":" not in target:
        raise UserError(f'{where}.type must be "package.module:Class", not {target!r}')
    module_name, _, class_name = target.partition(":")
    if module_name.split(".")[0] not in (*TRUSTED_ROOTS, *trusted):
        raise UserError(
            f"{where}.type names the package {module_name.split('.')[0]!r}, which is not trusted; "
            f"pass --trust_root={module_name.split('.')[0]} if you mean to run its code"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{where}.type: {error}") from error
    cls = getattr(module, class_name, None)
    if cls is None:
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        raise UserError(
            f"{where}.type: {module_name} has no class {class_name!r}{closest(class_name, classes)}"
        )
    return build(cls, {**values, **extra}, where, trusted=trusted)


def spec_of(instance: Any) -> dict[str, Any]:
    """The spec that `resolve` makes such an object of, as JSON values, its name left out."""
    cls = type(instance)
    values = {k: v for k, v in dataclasses.asdict(instance).items() if k != "name"}
    return {"type": f"{cls.__module__}:{cls.__qualname__}", **plain(values)}


def _convert(value: Any, hint: Any, where: str, trusted: Iterable[str]) -> Any:
    """`value` as the annotated type, or a `UserError`."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            try:
                return _convert(value, option, where, trusted)
            except UserError:
                continue
    elif origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        repeated = len(inner) == 2 and inner[1] is Ellipsis
        if repeated or len(inner) == len(value):
            hints = (inner[0],) * len(value) if repeated else inner
            return tuple(_convert(v, h, where, trusted) for v, h in zip(value, hints, strict=True))
    elif origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        options = map(str, typing.get_args(hint))
        raise UserError(
            f"{where} = {value!r} is not one of its values{closest(str(value), options)}"
        )
    elif _is_instance(value, hint, origin):
        return value
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, Mapping) and "type" in value:
        found = resolve(value, where, trusted=trusted)
        if isinstance(found, hint):
            return found
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, where, trusted=trusted)
    raise UserError(f"{where} = {value!r} should be {getattr(hint, '__name__', hint)}")


def _is_instance(value: Any, hint: Any, origin: Any) -> bool:
    """Whether a value already has the annotated type; what cannot be checked passes."""
    if origin is not None:
        return not isinstance(origin, type) or isinstance(value, origin)
    if not isinstance(hint, type):
        return True
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
