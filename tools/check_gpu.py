"""Check this code on the GPU of this machine, and write a report to send back.

    python -m tools.check_gpu                       # at most ten minutes; writes check_gpu.json
    python -m tools.check_gpu --parts attention speed

Every part runs in a process of its own, so that one crash does not hide the rest. Every line of the
table is one check: ok, FAILED, skipped, or a measurement. The exit status is 0 only if nothing
failed. Without a GPU the same checks run on the CPU with the C++ operators, smaller where they are
slow, and what needs a GPU is skipped.

The parts:

    machine         versions, card, driver
    attention       outputs and gradients against the equations, in every precision
    fusion          the same for the end of the scale aggregation
    network         JDNet against its written-out form, in every precision
    graph           capture in a CUDA graph: the replay gives the same
    tiles           tiles against the whole image, and under a memory limit; the second look
    losses          the first 20 losses of `python train.py`
    train           a few steps of train.py in every precision
    data-parallel   the same on all GPUs at once
    torchrun        the same with one process per GPU
    launches        kernels of a forward pass and of a training step
    rates           matrix products, convolutions and copies: what this machine can do at most
    speed           time and memory of the forward pass and of the training step
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from config import CONFIGS
from config.checks import require_positive
from config.cli import tool_options
from config.networks import JDNetConfig
from config.schema import Config, Machine
from models.derainer import Derainer
from models.jdnet.activation import SLOPE
from models.jdnet.equations import PlainJDNet
from models.jdnet.network import JDNet
from models.jdnet.ops import (
    choose_implementation,
    fuse_scales,
    pairwise_attention,
    pairwise_attention_reference,
)
from models.scale import look_again
from tools.benchmark import _captured, _convolution_rate, _median_time
from training.losses import negative_ssim
from training.run import batches, build_run, take_step
from training.schedule import learning_rate
from utils.errors import UserError, run_command
from utils.files import write_text, writing
from utils.runtime import (
    REPOSITORY,
    autocast,
    choose_device,
    choose_precision,
    has_fast_bfloat16,
    peak_memory,
    provenance,
)

Part = Literal[
    "machine",
    "attention",
    "fusion",
    "network",
    "graph",
    "tiles",
    "losses",
    "train",
    "data-parallel",
    "torchrun",
    "launches",
    "rates",
    "speed",
]
GOLDEN_LOSSES = REPOSITORY / "tests" / "fixtures" / "golden-losses.json"
COLUMNS = ("part", "check", "result", "detail")
PATIENCE = 300  # seconds for one part
TINY = (
    *("--train-pairs", "6", "--test-pairs", "2", "--image-size", "32", "--units", "1"),
    *("--channels", "16", "--scales", "2", "--batch-size", "8", "--patch-size", "16"),
    *("--steps", "3", "--eval-every", "3", "--log-every", "1", "--workers", "0"),
)


@dataclass(frozen=True)
class Options:
    """What to check."""

    parts: tuple[Part, ...] = get_args(Part)
    """Parts to run; default all."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto uses the GPUs if there are any."""
    minutes: float = 10
    """No part goes on for longer than this after the start; what is left is skipped."""
    output: Path = Path("check_gpu.json")
    """JSON file with all results."""


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    check: str
    result: Literal["ok", "FAILED", "skipped", "measured"]
    detail: str = ""


_NO_TIME = Check("the rest", "skipped", "no time left: --minutes")


class SkippedError(Exception):
    """A part cannot run here; the message says why."""


Steps = Iterator[Check]


def machine(device: torch.device) -> Steps:
    """What to know about the machine to read the rest."""
    about = provenance(device)
    yield Check("versions", "measured", ", ".join(f"{k} {about[k]}" for k in ("torch", "python")))
    yield Check("commit", "measured", about["commit"] or "not in git")
    yield Check("system", "measured", f"{platform.platform()}, {os.cpu_count()} processors")
    fast = "has" if has_fast_bfloat16(device) else "has no"
    yield Check("bfloat16", "measured", f"{device} {fast} instructions for it")
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        yield Check(
            f"GPU {number}",
            "measured",
            f"{card.name}, compute capability {card.major}.{card.minor}, "
            f"{card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors",
        )
    if device.type != "cuda":
        yield Check("GPU", "skipped", f"none is used: the device is {device}")
        return
    yield Check("CUDA", "measured", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    yield Check("driver", "measured", _last_line("nvidia-smi", "--query-gpu=driver_version"))
    yield Check("Triton", "measured", _last_line(sys.executable, "-c", _TRITON_VERSION))


_TRITON_VERSION = "import triton; print(triton.__version__)"


def _last_line(*command: str) -> str:
    extra = ["--format=csv,noheader"] if command[0] == "nvidia-smi" else []
    try:
        done = subprocess.run([*command, *extra], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return (done.stdout.strip() or done.stderr.strip() or "unknown").splitlines()[-1]


def _compare(name: str, ours: Sequence[Tensor], exact: Sequence[Tensor], tolerance: float) -> Check:
    """Compare outputs and gradients; the tolerance is relative to the largest exact value."""
    worst = 0.0
    for mine, theirs in zip(ours, exact, strict=True):
        difference = (mine.detach().cpu().double() - theirs.detach().cpu().double()).abs().max()
        error = difference.item() / max(1.0, theirs.abs().max().item())
        worst = error if error != error else max(worst, error)
        if worst != worst:
            break
    passed = worst <= tolerance
    return Check(name, "ok" if passed else "FAILED", f"error {worst:.1e}, at most {tolerance:.0e}")


def _with_gradients(run: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The output of a function, and the gradients of its inputs for a fixed gradient of it."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = run(*leaves)
    grad = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    out.backward(grad.to(out))
    return [out, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


PRECISIONS: dict[str, tuple[torch.dtype, float]] = {
    "float32": (torch.float32, 1e-4),
    "tf32": (torch.float32, 1e-4),  # the operators must not use it
    "bfloat16": (torch.bfloat16, 2e-2),
}


def _precisions(device: torch.device) -> list[str]:
    return [name for name in PRECISIONS if name != "tf32" or device.type == "cuda"]


def attention(device: torch.device) -> Steps:
    """Eq. 2-4 on odd, narrow and non-square images, against the textbook form in float64."""
    fast = "triton" if device.type == "cuda" else "native"
    x = torch.zeros(1, 12, 8, 8, device=device)
    chosen = choose_implementation(x, 7)
    passed = chosen == fast
    yield Check("choice", "ok" if passed else "FAILED", f"{chosen}, expected {fast}")

    def textbook(features: Tensor, position: Tensor, gamma: Tensor, footprint: int) -> Tensor:
        relations = len(gamma) - position.shape[1]
        phi, psi, beta = features.split(
            [relations, relations, features.shape[1] - 2 * relations], dim=1
        )
        return pairwise_attention_reference(phi, psi, beta, position, gamma, footprint)

    for precision in _precisions(device):
        dtype, tolerance = PRECISIONS[precision]
        choose_precision(precision, device)
        for n, h, w, r, v, k in (
            (2, 64, 64, 2, 8, 7),
            (1, 37, 53, 2, 8, 7),
            (3, 4, 5, 2, 8, 7),
            (1, 129, 4, 1, 4, 7),
            (2, 20, 33, 4, 16, 3),
            (1, 40, 17, 3, 5, 15),
        ):
            generator = torch.Generator().manual_seed(0)
            shapes = [(n, 2 * r + v, h, w), (1, 2, h, w), (r + 2,)]
            inputs = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
            exact = _with_gradients(partial(textbook, footprint=k), [x.double() for x in inputs])
            run = partial(pairwise_attention, footprint=k, implementation=chosen)
            ours, again = (_with_gradients(run, [x.to(device) for x in inputs]) for _ in range(2))
            name = f"{precision}, {n}x{w}x{h}, {r} relations, {v} values, footprint {k}"
            yield _compare(name, ours, exact, tolerance)
            if not all(map(torch.equal, ours, again)):
                yield Check(name, "FAILED", "a second run gives another result")


def fusion(device: torch.device) -> Steps:
    """Eq. 9 against longhand in float64."""

    def longhand(first: Tensor, *rest: Tensor) -> Tensor:
        *others, residual = rest
        up = (F.interpolate(other, first.shape[2:], mode="nearest") for other in others)
        return F.leaky_relu(first + sum(up), SLOPE) + residual

    def ours(first: Tensor, *rest: Tensor) -> Tensor:
        return fuse_scales(first, rest[:-1], rest[-1])

    for precision in ("float32", "bfloat16"):
        dtype, tolerance = PRECISIONS[precision]
        for n, c, h, w in ((2, 32, 64, 64), (1, 16, 37, 53), (3, 48, 1, 7)):
            generator = torch.Generator().manual_seed(0)
            sizes = [(h, w)]
            for _ in range(4):
                sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
            shapes = [(n, c, *size) for size in (*sizes, (h, w))]
            inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
            exact = _with_gradients(longhand, [x.double() for x in inputs])
            results = _with_gradients(ours, [x.to(device) for x in inputs])
            yield _compare(f"{precision}, {n}x{c}x{w}x{h}", results, exact, tolerance)


def network(device: torch.device) -> Steps:
    """Outputs and gradients of JDNet with two units against its equations in float64."""
    allowed = {"float32": (1e-4, 1e-3), "tf32": (1e-2, 5e-2), "bfloat16": (5e-2, 0.2)}
    for size in ((64, 64), (37, 53), (18, 90)):
        rainy = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
        plain, plain_gradients = _outputs(PlainJDNet(_TWO).double(), rainy.double(), torch.float64)
        for precision in _precisions(device):
            dtype = choose_precision(precision, device)
            jdnet = JDNet(_TWO).place(device)
            derained, gradients = _outputs(jdnet, rainy.to(device), dtype)
            outputs, steps = allowed[precision]
            name = f"{precision}, 2x{size[1]}x{size[0]}"
            yield _compare(f"{name}, output", [derained], [plain], outputs)
            error = ((gradients - plain_gradients).norm() / plain_gradients.norm()).item()
            result: Literal["ok", "FAILED"] = "ok" if error <= steps else "FAILED"
            detail = f"error {error:.1e} of the norm, at most {steps:.0e}"
            yield Check(f"{name}, gradient", result, detail)


_TWO = JDNetConfig(units=2)
TILES = 3e-3  # what a tile does not see of its surroundings changes less


def _outputs(jdnet: JDNet, rainy: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The output of a network with fixed weights, and the gradient of all its parameters."""
    generator = torch.Generator().manual_seed(1)
    for p in jdnet.parameters():
        values = torch.randn(p.shape, generator=generator) / max(1, p[0].numel()) ** 0.5
        p.data.copy_(values)
    half = dtype if dtype == torch.bfloat16 else torch.float32
    with autocast(rainy.device, half):
        derained = jdnet.train()(rainy)
    (derained.to(rainy.dtype) - rainy).square().mean().backward()
    gradients = [
        (torch.zeros_like(p) if p.grad is None else p.grad).flatten().cpu().double()
        for p in jdnet.parameters()
    ]
    return derained.detach().cpu(), torch.cat(gradients)


def graph(device: torch.device) -> Steps:
    """A captured forward pass and a captured training step give what they give without a graph."""
    if device.type != "cuda":
        raise SkippedError("needs a GPU")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 64, 64, generator=generator).to(device)
    for precision in _precisions(device):
        dtype = choose_precision(precision, device)
        tolerance = 1e-4 if precision == "float32" else 1e-2
        torch.manual_seed(0)
        jdnet = JDNet(_TWO).place(device)
        for name, run in (("forward", _forward), ("training step", _step)):
            results: list[Tensor] = []
            once = partial(run, jdnet, images, dtype, results)
            once()
            eager = [x.clone() for x in results]
            replay = _captured(once, device)
            for x in results:
                x.zero_()
            replay()
            yield _compare(f"{precision}, {name}", results, eager, tolerance)


def _forward(jdnet: JDNet, images: Tensor, dtype: torch.dtype, results: list[Tensor]) -> None:
    with torch.no_grad(), autocast(images.device, dtype):
        results[:] = [jdnet.eval()(images)]


def _step(jdnet: JDNet, images: Tensor, dtype: torch.dtype, results: list[Tensor]) -> None:
    jdnet.zero_grad(set_to_none=False)
    with autocast(images.device, dtype):
        stages = jdnet.train().stages(images)
    loss = negative_ssim(stages, images)
    loss.backward()
    results[:] = [loss.detach(), *(p.grad for p in jdnet.parameters() if p.grad is not None)]


def tiles(device: torch.device) -> Steps:
    """Tiles give the result of the whole image; too little memory gives smaller tiles.

    The second look is compared with its result in float64.
    """
    torch.manual_seed(0)
    jdnet = JDNet(_TWO).place(device).eval()
    image = torch.rand(3, 340, 700).to(device)
    derain = Derainer(jdnet, precision="float32", scale=1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    whole = derain(image)
    peak = peak_memory(device)
    tiled = Derainer(jdnet, precision="float32", tile=256, scale=1)(image)
    yield _compare("tiles of 256x256", [tiled], [whole], TILES)
    bars = (torch.arange(700) % 3 == 0) & (torch.arange(700) < 350)
    barred = (image + 9 * bars.to(device)) / 10
    blur = partial(F.avg_pool2d, kernel_size=5, stride=1, padding=2)
    ours, exact = (look_again(blur, x, blur(x), 1) for x in (barred, barred.cpu().double()))
    yield _compare("second look at bars", [ours], [exact], 1e-4)
    if device.type != "cuda":
        yield Check("memory limit", "skipped", "needs a GPU")
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / total, device)
    name = f"memory limit of {0.7 * peak / 2**20:.0f} MiB, where {peak / 2**20:.0f} were needed"
    yield _compare(name, [derain(image)], [whole], TILES)


def losses(device: torch.device) -> Steps:
    """The first 20 losses of `python train.py` are those that the tests expect."""
    golden = json.loads(GOLDEN_LOSSES.read_text())
    ours = first_losses(CONFIGS["synthetic"], str(device), len(golden))
    # As in the tests: rounding errors double every two steps.
    for name, part, tolerance in (("first", slice(0, 10), 1e-3), ("next", slice(10, 20), 5e-2)):
        errors = [abs(a / b - 1) for a, b in zip(ours[part], golden[part], strict=True)]
        passed = all(error <= tolerance for error in errors)
        detail = f"error {max(errors):.1e}, at most {tolerance:.0e}"
        yield Check(f"{name} {len(errors)} losses", "ok" if passed else "FAILED", detail)


def first_losses(config: Config, device: str, count: int) -> list[float]:
    """1 - SSIM of the first training steps of a preset; writes nothing."""
    run = build_run(replace(config, machine=Machine(device=device)))
    patches, scenes = batches(run), run.data.patches.scenes
    lrs = (learning_rate(config.training, step, run.steps, scenes) for step in range(count))
    return [1 + take_step(run, patches, lr)[0].item() for lr in lrs]


def train(device: torch.device) -> Steps:
    """Three steps of train.py in every precision, and its final scores."""
    for precision in _precisions(device):
        found = _train([sys.executable], "--device", str(device), "--precision", precision)
        yield Check(f"{precision}", "ok", _in_words(found))


def data_parallel(device: torch.device) -> Steps:
    """On all GPUs of the machine, without BatchNorm: the losses of one GPU."""
    count = _gpus(device, at_least=2)
    plain = ("--no-self-attention", "--batch-size", str(count))
    one = _train([sys.executable], "--device", "cuda:0", *plain)
    everywhere = _train([sys.executable], "--device", "cuda", *plain)
    yield _same_losses(f"{count} GPUs, without attention", everywhere, one)
    found = _train([sys.executable], "--device", "cuda", "--batch-size", str(count))
    yield Check(f"{count} GPUs, with attention", "ok", _in_words(found))


def torchrun(device: torch.device) -> Steps:
    """One process per GPU, or two on the CPU, without BatchNorm: the losses of one process."""
    count = _gpus(device, at_least=1) if device.type == "cuda" else 2
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "--"]
    plain = ("--no-self-attention", "--batch-size", str(2 * count), "--device", device.type)
    alone = (*plain[:-1], "cuda:0") if device.type == "cuda" else plain
    one = _train([sys.executable], *alone)
    several = _train([sys.executable, *launcher], *plain)
    yield _same_losses(f"{count} processes, without attention", several, one)
    if device.type == "cuda":
        attends = plain[1:]
        found = _train([sys.executable, *launcher], *attends)
        yield Check(f"{count} processes, with attention", "ok", _in_words(found))


def _gpus(device: torch.device, at_least: int) -> int:
    """The number of GPUs of the machine."""
    count = torch.cuda.device_count()
    if device.type != "cuda" or count < at_least:
        raise SkippedError(f"needs {at_least} GPUs, {count} found")
    return count


def _train(launcher: Sequence[str], *flags: str) -> list[float]:
    """Train a tiny network with train.py; return its losses, 1 - SSIM."""
    with tempfile.TemporaryDirectory() as folder:
        command = (*launcher, "train.py", "synthetic", *TINY, *flags, "--run", folder)
        ended = run_process(command, time.monotonic() + 240, {"OMP_NUM_THREADS": "1"})
        if ended.status:
            raise UserError(f"train.py {' '.join(flags)}: {ended.reason}")
        events = map(json.loads, (Path(folder) / "log.jsonl").read_text().splitlines())
        return [event["1-ssim"] for event in events if event["event"] == "step"]


def _in_words(found: Sequence[float]) -> str:
    return "losses " + ", ".join(f"{loss:.4f}" for loss in found)


def _same_losses(name: str, ours: Sequence[float], expected: Sequence[float]) -> Check:
    error = max(abs(a / b - 1) for a, b in zip(ours, expected, strict=True))
    detail = f"{_in_words(ours)}, error {error:.1e}, at most 1e-03"
    return Check(name, "ok" if error <= 1e-3 else "FAILED", detail)


class _Operations(TorchDispatchMode):
    """Counts the operations that compute or copy, not those that return views or empty tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        returned = func._schema.returns
        alias = returned[0].alias_info if returned else None
        is_view = alias is not None and not alias.is_write
        free = ("empty", "detach", "view", "alias", "promote_types")
        is_free = any(word in func._schema.name for word in free)
        self.count += not is_view and not is_free
        return func(*args, **(kwargs or {}))


def launches(device: torch.device) -> Steps:
    """Kernels of the paper's network; on the CPU operations, of which a kernel may do a part."""
    jdnet = JDNet().place(device)
    images = torch.rand(1, 3, 64, 64, device=device)
    for precision, (run, name) in product(
        ("float32", "bfloat16"), ((_forward, "forward"), (_step, "training step, no optimizer"))
    ):
        dtype = choose_precision(precision, device)
        run(jdnet, images, dtype, [])  # compiles
        jdnet.zero_grad()  # as in a training, gradients are written and not added
        if device.type == "cuda":
            with torch.profiler.profile() as profile:
                run(jdnet, images, dtype, [])
                torch.cuda.synchronize(device)
            kernels = sum(e.device_type.name == "CUDA" for e in profile.events() or ())
            told = f"{kernels:,} kernels and copies"
        else:
            with _Operations() as seen:
                run(jdnet, images, dtype, [])
            told = f"{seen.count:,} operations"
        yield Check(f"{precision}, {name}", "measured", told)


def rates(device: torch.device) -> Steps:
    """The rates of large products, convolutions and copies, by which to judge the speeds."""
    on_gpu = device.type == "cuda"
    side = 8192 if on_gpu else 1024
    for precision in _precisions(device):
        dtype = choose_precision(precision, device)
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        matrix = torch.rand(side, side, device=device, dtype=dtype)
        seconds = _median_time(partial(torch.matmul, matrix, matrix), 5, device)
        yield Check(f"{precision}, matrix", "measured", f"{2e-12 * side**3 / seconds:.3g} TFLOP/s")
        rate = _convolution_rate(device, dtype)
        name = f"{precision}, 3x3 convolution of 64 channels"
        yield Check(name, "measured", f"{2e-12 * rate:.3g} TFLOP/s")
    source = torch.zeros(2**30 if on_gpu else 2**26, dtype=torch.uint8, device=device)
    seconds = _median_time(partial(torch.empty_like(source).copy_, source), 5, device)
    yield Check("copy", "measured", f"{2e-9 * source.numel() / seconds:.3g} GB/s read and written")


def speed(device: torch.device) -> Steps:
    """Rows of tools.benchmark: the paper's network on a GPU, a small one on the CPU."""
    on_gpu = device.type == "cuda"
    shape = ("--units", "32") if on_gpu else ("--units", "8", "--repeats", "1")
    cases = [("forward", "481x321", "1"), ("train", "64x64", "12" if on_gpu else "2")]
    cases += [("forward", "1920x1080", "1")] if on_gpu else []
    for (mode, size, batch), precision in product(cases, _precisions(device)):
        for graph in ([], ["--graph"]) if on_gpu else ([],):
            flags = ["--modes", mode, "--sizes", size, "--batch-size", batch, *shape, *graph]
            flags += ["--networks", "jdnet", "--precisions", precision, "--device", str(device)]
            name = f"{mode}, {batch}x{size}, {precision}{', graph' * bool(graph)}"
            command = [sys.executable, "-m", "tools.benchmark", *flags]
            ended = run_process(command, time.monotonic() + 240)
            if ended.status:
                yield Check(name, "FAILED", ended.reason)
                continue
            table = ended.output.strip().splitlines()
            head, _, row = (line.split("|")[1:-1] for line in table[-3:])
            cells = {k.strip(): v.strip() for k, v in zip(head, row, strict=True)}
            told = {k: v for k, v in cells.items() if v and k not in _NAMED}
            yield Check(name, "measured", ", ".join(f"{k} {v}" for k, v in told.items()))
    if not on_gpu:
        yield Check("forward, 1x1920x1080", "skipped", "takes minutes on a CPU")


_NAMED = ("network", "mode", "images", "precision")  # columns of tools.benchmark

PARTS: dict[Part, Callable[[torch.device], Steps]] = {
    "machine": machine,
    "attention": attention,
    "fusion": fusion,
    "network": network,
    "graph": graph,
    "tiles": tiles,
    "losses": losses,
    "train": train,
    "data-parallel": data_parallel,
    "torchrun": torchrun,
    "launches": launches,
    "rates": rates,
    "speed": speed,
}


class Ended(NamedTuple):
    """A process that ended."""

    status: int
    output: str
    errors: str
    late: bool  # it was stopped

    @property
    def reason(self) -> str:
        """Why it failed, in one line."""
        if self.late:
            reason = "took too long"
        elif self.status < 0:
            reason = f"killed by signal {-self.status}"
        else:
            reason = f"status {self.status}"
        told = [line.removeprefix("error: ") for line in self.errors.strip().splitlines()[-1:]]
        return ": ".join([reason, *told])


def run_process(
    command: Sequence[str], deadline: float, environment: dict[str, str] | None = None
) -> Ended:
    """Run a command in the root of the repository, until it ends or the clock is at `deadline`."""
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    late = False
    try:
        output, errors = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        late = True
        output, errors = _stop(process)
    except BaseException:
        _stop(process)
        raise
    return Ended(process.returncode or int(late), output, errors, late)


def _stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End a process, which ends its own processes at SIGTERM."""
    process.terminate()
    try:
        return process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def run_part(command: Sequence[str], end: float) -> list[Check]:
    """Run a part in its process; return its checks, its notes, and why it did not end well.

    A part that hangs fails, so that it does not take the time of the others. What is not done when
    the clock is at `end` is skipped.
    """
    deadline = min(end, time.monotonic() + PATIENCE)
    ended = run_process(command, deadline)
    checks = [Check(**json.loads(line)) for line in ended.output.splitlines() if line[:1] == "{"]
    notes = [line for line in ended.errors.splitlines() if line.startswith("note: slower")]
    checks += [Check("note", "measured", line) for line in notes]
    if ended.late and deadline == end:
        return [*checks, _NO_TIME]
    failed = [Check("the whole part", "FAILED", ended.reason)]
    return checks + failed * (ended.status != 0)


def run_here(part: Part, device: torch.device) -> None:
    """Run a part in this process, on one GPU; print its checks as lines of JSON."""
    if device == torch.device("cuda"):
        device = torch.device("cuda", 0)  # train.py would use all: a part of its own does
    try:
        for check in PARTS[part](device):
            print(json.dumps(asdict(check)), flush=True)
    except SkippedError as why:
        print(json.dumps(asdict(Check("all", "skipped", str(why)))))


def main(arguments: list[str]) -> None:
    """Run `python -m tools.check_gpu [flags]`."""
    if arguments[:1] == ["--part"]:  # internal: one part, in its own process
        run_here(cast(Part, arguments[1]), choose_device(arguments[2]))
        return
    options = tool_options(Options, arguments, "python -m tools.check_gpu", __doc__)
    require_positive(options, "minutes")
    device, start = choose_device(options.device), time.monotonic()
    with writing(options.output):  # before the work
        options.output.parent.mkdir(parents=True, exist_ok=True)
    if device.type != "cuda":
        print(f"note: no GPU is used: this checks {device}, and skips what needs a GPU")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    rows: list[dict[str, str]] = []
    for part in options.parts:
        command = (sys.executable, "-m", "tools.check_gpu", "--part", part, str(device))
        end = start + 60 * options.minutes
        checks = run_part(command, end) if time.monotonic() < end - 5 else [_NO_TIME]
        for check in checks:
            rows.append({"part": part, **asdict(check)})
            print("| " + " | ".join(rows[-1][c].replace("|", "/") for c in COLUMNS) + " |")
    report = {"provenance": provenance(device), "checks": rows}
    write_text(options.output, json.dumps(report, indent=2) + "\n")
    failed = sum(row["result"] == "FAILED" for row in rows)
    print(f"\n{len(rows)} checks, {failed} failed; written: {options.output}")
    if failed:
        raise UserError(f"{failed} checks failed: please report {options.output}")


if __name__ == "__main__":
    run_command(main)
