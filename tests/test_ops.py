"""Operators: every implementation against a reference, and that against the equations."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from config.networks import JDNetConfig
from models import JDNet
from models.jdnet.ops import (
    choose_implementation,
    cuda,
    fuse_scales,
    library,
    native,
    pairwise_attention,
    scale_fusion,
    self_check,
    shifts,
)
from models.jdnet.ops import pairwise_attention_reference as reference
from models.jdnet.ops.inputs import Inputs as Joined


class Inputs(NamedTuple):
    """Arguments of the reference except the footprint."""

    phi: Tensor
    psi: Tensor
    beta: Tensor
    position: Tensor
    gamma: Tensor


def operator_inputs(
    n: int = 2, h: int = 6, w: int = 9, r: int = 2, v: int = 8, dtype: torch.dtype = torch.float64
) -> Inputs:
    torch.manual_seed(1)
    shapes = [(n, r, h, w), (n, r, h, w), (n, v, h, w), (1, 2, h, w), (r + 2,)]
    return Inputs(*(torch.randn(s, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes))


def detached(inputs: Inputs) -> Inputs:
    return Inputs(*(x.detach() for x in inputs))


def on(device: str, inputs: Inputs) -> Inputs:
    return Inputs(*(x.detach().to(device).requires_grad_() for x in inputs))


def joined(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The tensor arguments of the operator."""
    phi, psi, beta, position, gamma = inputs
    return torch.cat([phi, psi, beta], dim=1), position, gamma


def attention(
    phi: Tensor,
    psi: Tensor,
    beta: Tensor,
    position: Tensor,
    gamma: Tensor,
    footprint: int,
    implementation: str | None = None,
) -> Tensor:
    """The operator with the arguments of the reference."""
    arguments = joined(Inputs(phi, psi, beta, position, gamma))
    return pairwise_attention(*arguments, footprint, implementation)


@pytest.fixture
def compiled() -> None:
    if library.load() is None:
        pytest.skip("no C++ compiler on this machine")


def naive_attention(
    phi: Tensor, psi: Tensor, beta: Tensor, position: Tensor, gamma: Tensor, footprint: int
) -> Tensor:
    """Eq. 2-4, pixel by pixel."""
    n, values, h, w = beta.shape
    radius = footprint // 2
    out = torch.empty_like(beta)

    def reflect(v: int, length: int) -> int:
        v = abs(v)
        return 2 * (length - 1) - v if v >= length else v

    for b in range(n):
        for i in range(h):
            for j in range(w):
                neighbours = [
                    (reflect(i + dy, h), reflect(j + dx, w))
                    for dy in range(-radius, radius + 1)
                    for dx in range(-radius, radius + 1)
                ]
                logits = []
                for y, x in neighbours:
                    content = phi[b, :, i, j] - psi[b, :, y, x]
                    place = position[0, :, i, j] - position[0, :, y, x]
                    logits.append(gamma @ F.leaky_relu(torch.cat([content, place]), 0.2))
                alpha = torch.stack(logits).softmax(0)
                gathered = torch.stack([beta[b, :, y, x] for y, x in neighbours])
                out[b, :, i, j] = alpha @ gathered.view(-1, values)
    return out


@pytest.mark.parametrize("operator", [attention, reference])
@pytest.mark.parametrize("footprint", [3, 7])
def test_attention_is_the_equation(operator: Callable[..., Tensor], footprint: int) -> None:
    inputs = detached(operator_inputs(h=5, w=4))
    torch.testing.assert_close(
        operator(*inputs, footprint), naive_attention(*inputs, footprint), rtol=1e-12, atol=1e-12
    )


def gradients(operator: Callable[..., Tensor], inputs: Inputs, footprint: int) -> list[Tensor]:
    out = operator(*inputs, footprint)
    grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
    out.backward(grad.view_as(out))
    return [out.detach(), *(x.grad for x in inputs if x.grad is not None)]


@pytest.mark.parametrize("size", [(6, 9), (9, 6), (4, 4)])
def test_shifts_equal_the_reference(size: tuple[int, int]) -> None:
    """Includes sizes that are not square, for which the released kernels were wrong."""
    results = [
        gradients(operator, operator_inputs(h=size[0], w=size[1]), 7)
        for operator in (partial(attention, implementation="shifts"), reference)
    ]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_native_propagates_non_finite_values(value: float) -> None:
    inputs = operator_inputs(1, 12, 40, dtype=torch.float32)
    inputs.phi.data[0, 0, 5, 20] = value
    out = attention(*inputs, 7, implementation="native")
    assert out.isnan().any(dim=1).nonzero().tolist() == [[0, 5, 20]]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("n", "h", "w", "r", "v", "footprint"),
    [
        (2, 64, 64, 2, 8, 7),
        (1, 37, 53, 2, 8, 7),
        (3, 5, 4, 2, 8, 7),  # rows shorter than a block
        (2, 40, 7, 1, 3, 13),  # the same in several bands; values not a multiple of four
        (1, 20, 16, 3, 5, 5),
        (1, 35, 17, 2, 6, 7),  # the last block adds one pixel
        (1, 4, 100, 1, 4, 7),
        (2, 20, 33, 4, 16, 3),
        (1, 70, 40, 2, 8, 1),
        (1, 40, 40, 2, 8, 15),
    ],
)
def test_native_equals_the_reference(
    n: int, h: int, w: int, r: int, v: int, footprint: int
) -> None:
    exact = gradients(reference, operator_inputs(n, h, w, r, v), footprint)
    run = partial(attention, implementation="native")
    ours = gradients(run, operator_inputs(n, h, w, r, v, torch.float32), footprint)
    for mine, theirs in zip(ours, exact, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=1e-5 * max(scale, 1))


@pytest.mark.usefixtures("compiled")
def test_native_is_the_same_for_any_number_of_threads(one_thread_after: None) -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        run = partial(attention, implementation="native")
        results.append(gradients(run, operator_inputs(2, 50, 45, dtype=torch.float32), 7))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.fixture
def one_thread_after() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> str:
    """Device for the Triton kernels: a GPU, or the CPU in Triton's interpreter."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        # The self-check takes half a minute there; these tests compare more.
        monkeypatch.setitem(self_check._VERDICTS, ("triton", torch.device("cpu")), True)
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("no GPU; test_triton_in_its_interpreter runs this test")
    return "cuda"


@pytest.mark.slow
def test_triton_in_its_interpreter() -> None:
    """Run the tests with the fixture `gpu`; TRITON_INTERPRET must be set before the import."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    command = [sys.executable, "-m", "pytest", "-k", "test_triton and not interpreter", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("n", "h", "w", "r", "v", "footprint"),
    [
        (2, 5, 9, 2, 8, 3),
        (1, 4, 5, 2, 8, 7),  # both borders mirror the same pixels
        (1, 13, 17, 3, 5, 5),  # two blocks; channels not a power of two
        (1, 2, 3, 1, 1, 1),
    ],
)
def test_triton_equals_the_reference(
    n: int, h: int, w: int, r: int, v: int, footprint: int, gpu: str
) -> None:
    exact = gradients(reference, operator_inputs(n, h, w, r, v), footprint)
    run = partial(attention, implementation="triton")
    inputs = operator_inputs(n, h, w, r, v, torch.float32)
    ours = gradients(run, on(gpu, inputs), footprint)
    for mine, theirs in zip(ours, exact, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(mine.double().cpu(), theirs, rtol=0, atol=1e-5 * max(scale, 1))


def test_triton_is_registered_correctly(gpu: str) -> None:
    check_registration(on(gpu, operator_inputs(n=1, h=4, w=5, dtype=torch.float32)), "triton")


def check_registration(inputs: Inputs, implementation: str) -> None:
    arguments = [x.detach().requires_grad_() for x in joined(inputs)]
    operator = torch.ops.jdnet.pairwise_attention.default
    torch.library.opcheck(operator, (*arguments, 3, implementation))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    ("size", "is_trained"), [((12, 64, 64), True), ((1, 321, 481), False)], ids=str
)
def test_gpu_sizes_of_use(size: tuple[int, int, int], is_trained: bool) -> None:
    """Compare with the shifts in float64, and check that a second run is bitwise identical."""
    assert choose_implementation(torch.zeros(1, 2, 8, 8, device="cuda"), 7) == "triton"

    def run(implementation: str, dtype: torch.dtype) -> list[Tensor]:
        inputs = on("cuda", operator_inputs(*size, dtype=dtype))
        operator = partial(attention, implementation=implementation)
        if is_trained:
            return gradients(operator, inputs, 7)
        return [operator(*detached(inputs), footprint=7)]

    exact, *ours = (
        run("shifts", torch.float64),
        run("triton", torch.float32),
        run("triton", torch.float32),
    )
    for theirs, mine, again in zip(exact, *ours, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=1e-5 * max(scale, 1))
        assert torch.equal(mine, again)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No operator has been used yet."""
    monkeypatch.setattr(self_check, "_VERDICTS", {})


@pytest.fixture
def fresh_triton(monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    """Triton on the CPU that no test has called yet."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.usefixtures("fresh_triton")
def test_without_triton_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("models.jdnet.ops.kernels", raising=False)  # on a GPU, of earlier tests
    monkeypatch.delitem(sys.modules, "models.jdnet.ops.kernels", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    for _ in range(2):
        assert not cuda.is_usable(torch.zeros(1, 2, 8, 8), 7)
    shown = capsys.readouterr().err
    assert shown.startswith("note: slower PyTorch operators are used (triton: ")
    assert shown.count("\n") == 1
    assert "report" not in shown


@pytest.mark.usefixtures("fresh_triton")
@pytest.mark.parametrize(
    ("error", "is_reported"),
    [
        (RuntimeError("Failed to find C compiler. Please specify via CC variable"), False),
        (subprocess.CalledProcessError(1, "gcc"), False),
        (RuntimeError("PassManager::run failed"), True),
    ],
    ids=["no compiler", "broken compiler", "broken kernel"],
)
def test_an_error_of_triton_is_remembered(
    error: Exception,
    is_reported: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing = Mock(side_effect=error)
    monkeypatch.setattr(cuda, "forward", failing)
    for _ in range(2):
        assert not cuda.works_on(torch.device("cpu"))
    assert failing.call_count == 1
    shown = capsys.readouterr().err
    assert shown.count("note: slower") == shown.count("\n") == 1
    assert ("please report this line" in shown) == is_reported


@pytest.mark.usefixtures("fresh_triton")
def test_out_of_memory_does_not_turn_triton_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Mock(side_effect=torch.OutOfMemoryError("full"))
    monkeypatch.setattr(cuda, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        cuda.works_on(torch.device("cpu"))
    monkeypatch.setattr(cuda, "forward", shifts.forward)
    monkeypatch.setattr(cuda, "backward", shifts.backward)
    assert cuda.works_on(torch.device("cpu"))
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("fresh_triton")
def test_only_one_thread_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiling(inputs: Joined, footprint: int) -> Tensor:
        time.sleep(0.05)
        return shifts.forward(inputs, footprint)

    forward = Mock(side_effect=compiling)
    monkeypatch.setattr(cuda, "forward", forward)
    monkeypatch.setattr(cuda, "backward", shifts.backward)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(cuda.works_on, [torch.device("cpu")] * 4))
    assert forward.call_count == 1


def broken_at(pixel: Tensor) -> Tensor:
    """A tensor with one wrong value, where a thread has read past its row."""
    wrong = pixel.clone()
    wrong.view(-1)[-1] += 0.01
    return wrong


def broken_forward(inputs: Joined, footprint: int) -> Tensor:
    return broken_at(shifts.forward(inputs, footprint))


def broken_backward(grad_out: Tensor, inputs: Joined, footprint: int) -> Joined:
    grads = shifts.backward(grad_out, inputs, footprint)
    return grads._replace(gamma=broken_at(grads.gamma))


def nan_forward(inputs: Joined, footprint: int) -> Tensor:
    return shifts.forward(inputs, footprint) * float("nan")


def failing_forward(inputs: Joined, footprint: int) -> Tensor:
    raise RuntimeError("an illegal memory access\nCompile with DEBUG")


BREAKS: list[tuple[str, Any, str]] = [
    ("forward", broken_forward, "the output is off by 0.01, at most "),
    ("forward", nan_forward, "the output is off by nan, at most "),
    ("backward", broken_backward, "the gradient of gamma is off by 0.01, at most "),
    ("forward", failing_forward, "an illegal memory access; please"),
]


@pytest.mark.usefixtures("compiled", "unchecked")
@pytest.mark.parametrize("implementation", ["native", "triton"])
@pytest.mark.parametrize(("part", "broken", "why"), BREAKS, ids=[b.__name__ for _, b, _ in BREAKS])
def test_a_broken_kernel_is_replaced(
    part: str,
    broken: Any,
    why: str,
    implementation: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With one line that asks for a report; results are those of PyTorch."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = {"native": native, "triton": cuda}[implementation]
    monkeypatch.setattr(cuda, "forward", shifts.forward)  # Triton may be missing here
    monkeypatch.setattr(cuda, "backward", shifts.backward)
    monkeypatch.setattr(module, part, broken)
    x = torch.zeros(1, 12, 9, 9)
    assert not any(module.is_usable(x, 7) for _ in range(2))
    shown = capsys.readouterr().err
    name = {"native": "C++ attention", "triton": "triton"}[implementation]
    assert shown.startswith(f"note: slower PyTorch operators are used ({name}: {why}")
    assert shown.endswith("report this line with the output of python -m tools.check_gpu)\n")
    assert shown.count("\n") == 1
    if implementation == "native":
        results = [
            gradients(operator, operator_inputs(dtype=torch.float32), 7)
            for operator in (attention, reference)
        ]
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    others = {"native": cuda, "triton": native}
    assert others[implementation].is_usable(x, 7)


@pytest.mark.usefixtures("compiled", "unchecked")
def test_a_self_check_draws_no_random_numbers_and_is_quick() -> None:
    """A training would otherwise depend on when its operators were first used."""
    before, start = torch.get_rng_state(), time.process_time()
    assert native.is_usable(torch.zeros(1, 2, 8, 8), 7)
    assert time.process_time() - start < 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_compared_while_a_cuda_graph_is_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor remembered; an operator that was compared before is used."""
    results, device = Mock(return_value=[]), torch.device("cuda", 0)
    capturing = Mock(return_value=True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", capturing)
    assert not self_check.passes("triton", device, results)
    results.assert_not_called()
    capturing.return_value = False
    assert self_check.passes("triton", device, results)
    capturing.return_value = True
    assert self_check.passes("triton", device, results)
    assert results.call_count == 1


def test_gradcheck() -> None:
    inputs = operator_inputs(n=1, h=4, w=5)
    assert torch.autograd.gradcheck(partial(attention, footprint=3), tuple(inputs))


def test_the_operator_is_registered_correctly() -> None:
    check_registration(operator_inputs(n=1, h=4, w=5), "shifts")


def test_images_smaller_than_the_border() -> None:
    with pytest.raises(ValueError, match="9x3 pixels are too few to reflect for a footprint of 7"):
        attention(*operator_inputs(h=3), 7)


def test_no_padding_whose_gradient_is_random_on_cuda() -> None:
    """PyTorch adds up the gradients of reflected and replicated pixels in any order there."""
    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    inputs = Joined(*joined(detached(operator_inputs())))
    network = JDNet(JDNetConfig(units=1, channels=16))
    with Watch():  # type: ignore[no-untyped-call]
        shifts.backward(shifts.forward(inputs, 7), inputs, 7)
        network(torch.rand(1, 3, 16, 16)).sum().backward()
    assert "jdnet.pairwise_attention_backward.default" in seen
    assert not [name for name in seen if "pad2d_backward" in name]


def test_large_logits() -> None:
    for implementation in ("shifts", None):
        inputs = Inputs(*(1e4 * x.detach().float() for x in operator_inputs()))
        assert attention(*inputs, 7, implementation).isfinite().all()


def test_float32_under_autocast() -> None:
    inputs = Inputs(*(x.detach().bfloat16() for x in operator_inputs()))
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*inputs, 7)
    assert out.dtype == torch.float32
    exact = reference(*Inputs(*(x.double() for x in inputs)), 7)
    torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_position_of_another_type_than_the_features(dtype: torch.dtype) -> None:
    """The native code takes all its inputs for float32."""
    inputs = detached(operator_inputs(dtype=torch.float32))
    position = inputs.position.to(dtype)
    exact = reference(*inputs._replace(position=position.float()), 7)
    for implementation in ("native", "shifts"):
        out = attention(*inputs._replace(position=position), 7, implementation)
        torch.testing.assert_close(out, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network, image = JDNet(JDNetConfig(units=2, channels=16)).eval(), torch.rand(1, 3, 21, 33)
    with torch.inference_mode():
        expected = network(image)
        out = network.to(dtype)(image.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.05)


def test_the_choice_of_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    single, double = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    best = "shifts" if library.load() is None else "native"
    assert choose_implementation(single, 7) == best
    assert choose_implementation(double, 7) == "shifts"
    assert choose_implementation(single, 17) == "shifts"  # too large for the compiled code
    assert choose_implementation(single, 7, "shifts") == "shifts"
    monkeypatch.setenv("JDNET_ATTENTION", "shifts")
    assert choose_implementation(single, 7) == "shifts"
    with pytest.raises(ValueError, match="native attention supports float32 on the CPU"):
        choose_implementation(double, 7, "native")
    with pytest.raises(ValueError, match="triton attention supports float32 on CUDA and odd"):
        choose_implementation(double, 7, "triton")
    monkeypatch.setenv("JDNET_ATTENTION", "cupy")
    with pytest.raises(
        ValueError, match="unknown attention 'cupy': JDNET_ATTENTION must be one of auto, shifts"
    ):
        choose_implementation(single, 7)


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_one_line_and_the_shifts(
    compiler: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library.load.cache_clear()
    monkeypatch.setenv("CXX", compiler)
    try:
        inputs = detached(operator_inputs(dtype=torch.float32))
        for _ in range(2):
            torch.testing.assert_close(attention(*inputs, 7), reference(*inputs, 7))
        shown = capsys.readouterr().err
        assert shown.startswith(f"note: slower PyTorch operators are used ({compiler}: ")
        assert shown.count("\n") == 1
    finally:
        library.load.cache_clear()


@pytest.mark.usefixtures("compiled")
def test_the_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.load.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[list[str]] = []
    run = subprocess.run

    def spy(command: list[str], **options: object) -> object:
        calls.append(command)
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    try:
        assert library.load() is not None
        library.load.cache_clear()
        assert library.load() is not None
    finally:
        library.load.cache_clear()
    assert sum("-shared" in command for command in calls) == 1
    assert len(list((tmp_path / "jdnet").iterdir())) == 1


# --- scale fusion --------------------------------------------------------------------------------


def fuse_longhand(first: Tensor, others: list[Tensor], residual: Tensor) -> Tensor:
    up = (F.interpolate(other, first.shape[2:], mode="nearest") for other in others)
    return F.leaky_relu(first + sum(up), 0.2) + residual


Fusion = tuple[Tensor, list[Tensor], Tensor]


def fusion_inputs(n: int, c: int, h: int, w: int, scales: int, dtype: torch.dtype) -> Fusion:
    torch.manual_seed(2)
    sizes = [(h, w)]
    for _ in range(scales):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    first, *others, residual = (
        torch.randn(n, c, *size, dtype=torch.float64).to(dtype) for size in (*sizes, (h, w))
    )
    return first, others, residual


DTYPES = [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
FUSIONS = [(2, 32, 64, 64, 4), (1, 16, 37, 53, 4), (3, 48, 1, 7, 2), (1, 6, 9, 6, 2)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=["f64", "f32", "bf16"])
@pytest.mark.parametrize("shape", FUSIONS)
def test_scale_fusion_longhand(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    """Outputs and gradients of the formula in float64.

    Includes odd sizes; 6 channels are not a multiple of the vector width of the C++ code.
    """
    inputs = fusion_inputs(*shape, dtype=dtype)
    results = []
    for run, precision in ((fuse_longhand, torch.float64), (fuse_scales, dtype)):
        flat = (inputs[0], *inputs[1], inputs[2])
        first, *others, residual = leaves = [
            x.detach().to(precision).requires_grad_() for x in flat
        ]
        out = run(first, others, residual)
        out.backward(torch.linspace(-1, 1, out.numel(), dtype=precision).view_as(out))
        results.append([out.detach(), *(x.grad for x in leaves if x.grad is not None)])
    assert len(results[0]) == len(results[1]) == len(inputs[1]) + 3
    for exact, ours in zip(*results, strict=True):
        assert ours.dtype == dtype
        error = (ours.double() - exact).abs().max().item()
        assert error < tolerance * max(1, exact.abs().max().item())


@pytest.mark.usefixtures("compiled", "unchecked")
@pytest.mark.parametrize("what", ["output", "mask"])
def test_a_broken_scale_fusion_is_replaced(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = scale_fusion._call_native

    def broken(first: Tensor, others: Any, residual: Tensor, out: Tensor, positive: Tensor) -> None:
        call(first, others, residual, out, positive)
        if what == "output":
            out[-1, -1, -1, -1] += 1
        else:
            positive[-1, -1, -1, -1] ^= True

    monkeypatch.setattr(scale_fusion, "_call_native", broken)
    first, others, residual = fusion_inputs(1, 32, 6, 5, 2, torch.float32)
    for _ in range(2):
        out = fuse_scales(first, others, residual)
        torch.testing.assert_close(out, fuse_longhand(first, others, residual))
    shown = capsys.readouterr().err
    start = (
        f"note: slower PyTorch operators are used (C++ scale fusion: the {what} in torch.float32"
    )
    assert shown.startswith(start)
    assert shown.count("\n") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["C++", "PyTorch"])
def test_scale_fusion_is_registered_correctly(dtype: torch.dtype) -> None:
    first, others, residual = fusion_inputs(1, 16, 6, 5, 2, dtype)
    arguments = [x.requires_grad_() for x in (first, *others, residual)]
    operator = torch.ops.jdnet.fuse_scales.default
    torch.library.opcheck(operator, (arguments[0], arguments[1:-1], arguments[-1], True))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # its own
@pytest.mark.usefixtures("unchecked")
def test_torch_compile_traces_the_whole_forward_pass() -> None:
    """The operators choose and check their implementation where it does not look."""
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=1, channels=16)).eval()
    rainy = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(rainy), network(rainy))
