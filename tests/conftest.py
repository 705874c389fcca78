# SPDX-License-Identifier: Apache-2.0
"""Test session: eight fake CPU devices, quick compiles, checked shapes, a compile cache."""

import os
import pathlib

# Tests compile much and run little: leave out LLVM's slow passes.
_FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402 - reads the environment
import pytest  # noqa: E402

from mtv_jax.core.typecheck import check_shapes  # noqa: E402

_CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

assert check_shapes(), "beartype is missing: pip install -r requirements.txt"


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled():
    """Forgets a module's compiled programs: each holds memory maps, of which a process has 65,530.

    Past them XLA dies of a segmentation fault. What is needed again comes from the cache on disk.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Stores and tokenizer of a tiny run, to read from."""
    from tests.integration.helpers import tiny_world

    return tiny_world(tmp_path_factory.mktemp("world"))


def pytest_addoption(parser):
    """`make golden`."""
    parser.addoption("--rewrite_golden", action="store_true", help="rewrite the golden files")
