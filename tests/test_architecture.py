"""Rules about the source as a whole that no linter checks."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "ssfs").rglob("*.py"))
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "ssfs",
    "tests",
    "tools",
}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_owns(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{module.relative_to(ROOT)} has no docstring"


def test_every_directory_with_code_is_a_package() -> None:
    holders = {path.parent for path in MODULES}
    bare = [str(path.relative_to(ROOT)) for path in holders if not (path / "__init__.py").exists()]
    assert not bare, f"No __init__.py in {sorted(bare)}: the wheel would lack these directories"


def test_top_level_holds_only_what_belongs_there() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone, so there is no list of the project's files")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    strangers = {name.split("/")[0] for name in listed.split("\0") if name} - TOP_LEVEL
    assert not strangers, f"Not at the top of the repository, please: {sorted(strangers)}"
