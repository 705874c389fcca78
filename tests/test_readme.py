# SPDX-License-Identifier: Apache-2.0
"""What the documents name exists: paths, links, modules, make targets."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TOP_FOLDERS = ("mtv_jax", "input_pipeline", "configs", "tools", "tests", "docs")


def code_of(text: str) -> list[str]:
    """Fenced blocks, line by line, and inline spans."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`]+)`", rest)


def paths_in(text: str) -> set[str]:
    """Repository paths that code names; templates in capitals are left out."""
    tops = "|".join(TOP_FOLDERS)
    found = re.findall(rf"(?<![\w/.-])(?:{tops})/[\w./-]*", "\n".join(code_of(text)))
    return {path for path in found if not re.search(r"[A-Z]{3}", path)}


def links_in(text: str) -> set[str]:
    """Targets of relative Markdown links."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return {target for target in targets if "://" not in target}


def modules_in(text: str) -> set[str]:
    """Our own modules that a document runs by `python -m`."""
    found = re.findall(r"python -m ([\w.]+)", "\n".join(code_of(text)))
    return {module for module in found if module.split(".")[0] in TOP_FOLDERS}


def targets_in(text: str) -> set[str]:
    return set(re.findall(r"^make ([a-z-]+)", "\n".join(code_of(text)), re.MULTILINE))


MODULES = sorted({m for path in DOCUMENTS for m in modules_in(path.read_text())})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_paths_and_links_resolve(document):
    text = document.read_text()
    missing = [path for path in paths_in(text) if not (ROOT / path).exists()]
    anchors = [link.partition("#")[0] for link in links_in(text)]
    missing += [link for link in anchors if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_make_targets_exist(document):
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets_in(document.read_text()) <= known


@pytest.mark.parametrize("module", MODULES)
def test_modules_answer_help(module):
    assert importlib.util.find_spec(module), f"no module {module}"
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # absl's own --help ends with 1
    assert len(done.stdout.splitlines()) > 5 and "Traceback" not in done.stderr


def test_readme_is_short_and_says_which_mtv():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 150
    first = lines[0].lower()
    assert "multi-task vision" in first and "not multiview transformers for video" in first


def test_finding_goes_red():
    text = "See [a](gone.md), `tools/gone.py`.\n```sh\npython -m tools.gone\nmake gone\n```\n"
    assert paths_in(text) == {"tools/gone.py"} and links_in(text) == {"gone.md"}
    assert modules_in(text) == {"tools.gone"} and targets_in(text) == {"gone"}
