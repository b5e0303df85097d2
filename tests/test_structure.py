"""Structure of the repository: allowed imports, and no side effects at import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
SCRIPTS = {"train", "eval", "show", "hubconf"}
ROOMS = {"config", "data", "models", "training", "evaluation", "report", "utils", "tools"}

# Allowed imports between the packages and scripts of this repository.
ALLOWED = {
    "config": {"config", "utils"},
    "data": {"data", "config", "utils"},
    "models": {"models", "config", "utils"},
    "utils": {"utils"},
    "training": {"training", "config", "data", "models", "utils"},
    "evaluation": {"evaluation", "config", "data", "models", "utils"},
    "report": {"report", "config", "evaluation", "utils"},
    "tools": {"tools", "config", "data", "models", "training", "evaluation", "report", "utils"},
    "train": {"config", "data", "models", "training", "evaluation", "utils"},
    "eval": {"config", "data", "models", "evaluation", "report", "utils"},
    "show": {"config", "models", "report", "utils"},
    "hubconf": {"models"},
}
THIRD_PARTY = {
    "config": {"tyro"},
    "models": {"torch", "triton", "tqdm"},
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


def test_torchvision_is_imported_only_inside_functions_of_one_module() -> None:
    """`test_nothing_happens_at_import` checks that nothing imports it at import."""
    assert [p.name for p in sources() if "torchvision" in imports(p)] == ["recognition.py"]


def test_the_networks_know_only_torch_and_their_configs() -> None:
    networks = [
        *(ROOT / "models" / "jdnet").rglob("*.py"),
        *(ROOT / "models/siblings").glob("*.py"),
    ]
    assert len(networks) > 10
    assert not [path.name for path in networks if "utils" in imports(path)]
    models = "\n".join(path.read_text() for path in (ROOT / "models").rglob("*.py"))
    assert set(re.findall(r"from (config[.\w]*) import", models)) == {"config.networks"}


def test_only_cli_knows_tyro() -> None:
    assert [p.name for p in sources() if "tyro" in imports(p)] == ["cli.py"]
    assert not [p.name for p in sources() if "argparse" in imports(p)]


def test_nobody_changes_the_search_path() -> None:
    """Tools run as modules from the root, so that imports need no help."""
    assert not [p.name for p in sources() if "sys.path" in p.read_text()]


IMPORT_ALL = """
import importlib, sys
import av, cv2, hypothesis, matplotlib.figure, PIL.Image, safetensors.torch, skimage.data
import skimage.metrics, tensorboardX.event_file_writer, tensorboardX.summary
import torch.utils.flop_counter, tqdm, tyro

def watch(event, arguments):
    reads_python = event == "open" and str(arguments[0]).endswith((".py", ".pyc"))
    touches = event.split(".")[0] in ("open", "os", "shutil", "subprocess", "socket", "tempfile")
    if touches and not reads_python and event not in ("os.listdir", "os.putenv"):
        raise SystemExit(f"{name} does {event} {arguments}")

sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not torch.cuda.is_initialized()
assert "torchvision" not in sys.modules
"""


@pytest.mark.slow
def test_nothing_happens_at_import() -> None:
    """No module opens a file, writes, or starts anything: only Python itself reads its sources."""
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sources()]
    # Needs Triton; and onnxscript reads the source of its functions.
    skipped = ("models.jdnet.ops.kernels", "tools.onnx_operators")
    names = [n.removesuffix(".__init__") for n in names if n not in skipped]
    command = [sys.executable, "-B", "-c", IMPORT_ALL, *names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_config_imports_no_torch() -> None:
    code = "import sys, config.cli; assert not {'torch', 'cv2', 'skimage'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_only_the_kernels_know_triton() -> None:
    assert [p.name for p in sources() if "triton" in imports(p)] == ["kernels.py"]


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert readme.index("make demo") < readme.index("make test")


@pytest.mark.parametrize("text", ["README.md", "CONTRIBUTING.md", "weights/README.md", *DOCS])
def test_texts_name_tests_and_files_that_exist(text: str) -> None:
    words = (ROOT / text).read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    named = re.findall(r"`(test_\w+)`", words)
    assert not [name for name in named if f"def {name}(" not in tests]
    files = re.findall(rf"\b((?:{'|'.join(ROOMS)}|weights|docs)/[\w/.-]+\.\w+)", words)
    assert not [name for name in files if not (ROOT / name).exists()]
    links = re.findall(r"\]\(([^)#:]+)\)", words)
    assert not [link for link in links if not ((ROOT / text).parent / link).exists()]
    modules = re.findall(r"python -m tools\.(\w+)", words)
    assert not [name for name in modules if not (ROOT / "tools" / f"{name}.py").exists()]
