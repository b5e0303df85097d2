"""The house: who may import whom, and that nothing happens at import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"train", "eval", "show"}
ROOMS = {"config", "data", "models", "utils", "tools"}

# Who may import whom; anything not of the house is third-party.
ALLOWED = {
    "config": {"config", "utils"},
    "data": {"data", "config", "utils"},
    "models": {"models"},
    "utils": {"utils"},
    "tools": {"tools", "config", "data", "models", "utils", "eval"},
    "train": {"config", "data", "models", "utils", "eval"},
    "eval": {"config", "data", "models", "utils"},
    "show": {"config", "data", "models", "utils", "eval"},
}
THIRD_PARTY = {
    "config": {"tyro"},
    "models": {"torch", "triton"},
}


def sources() -> list[Path]:
    return [
        *(ROOT / f"{s}.py" for s in SCRIPTS),
        *(f for room in ROOMS for f in (ROOT / room).rglob("*.py")),
    ]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_plan(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    found = imports(path)
    assert found & (ROOMS | SCRIPTS) <= ALLOWED[room]
    others = found - ROOMS - SCRIPTS - set(sys.stdlib_module_names)
    assert others <= THIRD_PARTY.get(room, others)
    assert "torchvision" not in others


def test_only_cli_knows_tyro() -> None:
    assert [p.name for p in sources() if "tyro" in imports(p)] == ["cli.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_only_define(path: Path) -> None:
    """Calls at module level are limited to pure constructors and the path of the tools."""
    harmless = {"Config", "replace", "Path", "TypeVar", "get_args", "run_command", "insert"}
    harmless |= {
        "JDNet",
        "DCSFN",
        "DANet",
        "PReNet",
        "RESCAN",
        "tuple",
        "range",
        "items",
        "Folders",
        "Synthetic",
        "Training",
        "Monitoring",
    }
    harmless |= {
        "Machine",
        "Published",
        "Rain",
        "resolve",
        "str",
        "compile",
        "Released",
        "register_autograd",
        "with_name",
    }
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", None))
                assert name in harmless, f"{path}: {name}() at import"


def test_config_imports_no_torch() -> None:
    code = "import sys, config.cli; assert not {'torch', 'cv2', 'skimage'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_only_the_kernels_know_triton() -> None:
    assert [p.name for p in sources() if "triton" in imports(p)] == ["kernels.py"]


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert readme.index("make demo") < readme.index("make test")


def test_readme_names_tests_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", readme))
    assert named
    assert not [name for name in named if f"def {name}(" not in tests]
    files = set(
        re.findall(r"\b((?:config|data|models|utils|tools|weights|docs)/[\w/.-]+\.\w+)", readme)
    )
    assert not [name for name in files if not (ROOT / name).exists()]
