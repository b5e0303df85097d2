"""Presets and the command line."""

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from config import CONFIGS, PRESETS
from config.cli import eval_config, show_config, tool_options, train_config
from config.networks import JDNetConfig
from config.schema import Config, Folders, Synthetic, Training, as_dict
from models.registry import NETWORKS
from training.losses import LOSSES
from training.schedule import learning_rate, total_steps
from utils.errors import UserError


def choices_of(kind: Any) -> dict[str, Any]:
    return {field.name: field.type for field in fields(kind)}


def leaves(settings: Any) -> list[str]:
    names = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        names += leaves(value) if is_dataclass(value) else [field.name]
    return names


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_flags_are_unique(config: Config) -> None:
    names = leaves(config)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["rain100h", "rain100l"])
def test_rain100_presets_carry_the_paper_recipe(name: str) -> None:
    config = CONFIGS[name]
    assert config.network == JDNetConfig(32, 32, 4, 4, 7, True, True, "image")
    recipe = config.training
    assert (recipe.patch_size, recipe.lr, recipe.loss, recipe.passes) == (64, 5e-4, "ssim", 1000)
    assert (recipe.milestones, recipe.decay, recipe.augment) == ((3 / 5, 4 / 5), 0.1, "none")
    assert recipe.clip is None
    assert recipe.batch_size == {"rain100h": 12, "rain100l": 32}[name]


def test_released_schedule_of_rain100h() -> None:
    """150,001 steps. The scheduler is stepped first, so each cut comes one step early."""
    recipe = CONFIGS["rain100h"].training
    steps = total_steps(recipe, scenes=1800)
    assert steps == 150_001
    rates = {s: learning_rate(recipe, s, steps, 1800) for s in (0, 89_998, 89_999, 119_998)}
    assert rates == {0: 5e-4, 89_998: 5e-4, 89_999: 5e-4 * 0.1, 119_998: 5e-4 * 0.1}
    assert learning_rate(recipe, 119_999, steps, 1800) == pytest.approx(5e-6)
    assert total_steps(CONFIGS["rain100l"].training, scenes=1800) == 56_251


def test_accumulation_keeps_the_number_of_patches() -> None:
    whole = train_config(["rain100h", "--batch-size", "12"]).training
    parts = train_config(["rain100h", "--batch-size", "4", "--accumulate", "3"]).training
    assert total_steps(whole, 1800) == total_steps(parts, 1800)


def test_cosine_schedule_falls_from_lr_to_zero() -> None:
    recipe = CONFIGS["synthetic"].training
    rates = [learning_rate(recipe, s, 100, 1) for s in (0, 50, 99)]
    assert rates[0] == recipe.lr
    assert rates[1] == pytest.approx(recipe.lr / 2)
    assert 0 < rates[2] < 1e-3 * recipe.lr


def test_trapezoid_rises_stays_and_falls() -> None:
    recipe = Training(schedule="trapezoid", lr=1.0, warmup=10, cooldown=0.25)
    rates = [learning_rate(recipe, step, 100, 1) for step in range(100)]
    assert rates[:11] == pytest.approx([*(i / 10 for i in range(1, 11)), 1.0])
    assert set(rates[9:76]) == {1.0}
    assert rates[75:] == pytest.approx([i / 25 for i in range(25, 0, -1)])
    short = [learning_rate(recipe, step, 40, 1) for step in range(40)]
    assert short[:31] == rates[:31]  # the length only affects the cooldown
    instant = replace(recipe, warmup=0, cooldown=0.0)
    assert {learning_rate(instant, step, 100, 1) for step in range(100)} == {1.0}


def test_registries_match_the_schema() -> None:
    assert {type(config.network) for config in CONFIGS.values()} == set(NETWORKS)
    assert set(get_args(choices_of(Training)["loss"])) == set(LOSSES)
    for name, preset in PRESETS.items():
        if isinstance(preset.config.data, Folders) and preset.facts:
            assert preset.config.data.dataset == name
            assert preset.config.data.test_sets == tuple(preset.facts.sets)


def test_overrides_and_default_preset() -> None:
    assert train_config([]) == CONFIGS["synthetic"]
    config = train_config(
        ["rain100l", "--lr", "1e-3", "--no-self-attention", "--loss", "mae", "--test-folder", "x"]
    )
    assert (config.training.lr, config.training.loss) == (1e-3, "mae")
    assert config.network == JDNetConfig(self_attention=False)
    assert isinstance(config.data, Folders)
    assert config.data.test_folder == Path("x")


def test_settings_as_plain_values() -> None:
    plain = as_dict(CONFIGS["rain100l"])
    assert plain["network"]["name"] == "jdnet"
    assert plain["data"]["test_folder"] == "datasets/Rain100L"


def test_eval_and_show_accept_flags_in_any_order() -> None:
    settings, _ = eval_config(["rain12", "--weights", "w.pt", "--conventions", "y", "rgb"])
    assert (settings.name, settings.conventions) == ("rain12", ("y", "rgb"))
    assert settings.machine.precision == "float32"  # published scores are
    shown = show_config(["--weights", "w.pt", "a.png", "b"])
    assert shown.machine.precision == "auto"
    assert (shown.inputs, shown.weights) == ((Path("a.png"), Path("b")), Path("w.pt"))


@pytest.mark.parametrize("name", CONFIGS)
def test_help_shows_the_defaults_of_the_preset(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        train_config([name, "--help"])
    assert stop.value.code == 0
    assert f"default: {CONFIGS[name].training.lr}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rain100x"], r"'rain100x': did you mean rain1"),
        (["nowhere"], r"'nowhere': .*synthetic, rain100h"),
        (["--lrr", "1"], r"--lrr.*did you mean --lr\?"),
        (["--lr", "fast"], r"--lr: .*'fast'"),
        (["--lr"], r"'--lr'"),
        (["--loss", "l1"], r"'l1'.*'--loss'.*'danet'"),
        (["--channels", "20"], r"^--channels .*got 20$"),
        (["--footprint", "4"], r"^--footprint .*got 4$"),
        (["--batch-size", "0"], r"^--batch-size .*got 0$"),
        (["--clip", "-1"], r"^--clip .*got -1"),
        (["--image-size", "8"], r"^--image-size .*got 8$"),
        (
            ["--lr", "1", "rain12"],
            r"rain12 is a preset",
        ),
        (["--exchange", "0.7", "--modelled", "0.4"], r"^--exchange and --modelled .*0.7 and 0.4"),
        (["--structures", "1.1"], r"^--structures .*got 1.1$"),
        (["--bright", "1.1"], r"^--bright .*got 1.1$"),
        (["--drops", "-0.1"], r"^--drops .*got -0.1$"),
        (["--drops", "0.7", "--dry", "0.4"], r"^--drops and --dry .*got 0.7"),
        (["--veil", "1"], r"^--veil .*got 1$"),
        (["--jpeg", "101"], r"^--jpeg .*got 101$"),
        (["--layer-size", "1.5", "0.5"], r"^--layer-size .*got 1.5 0.5$"),
        (["--layer-gain", "0", "1"], r"^--layer-gain .*got 0 1$"),
        (["--layer-angle", "200"], r"^--layer-angle .*got 200$"),
        (["--loss", "danet"], r"^--loss danet .*jdnet$"),
        (["--milestones", "nan"], r"^--milestones .*nan"),
        (["--seed", str(2**63)], r"^--seed .*got 9223"),
        (["--cooldown", "2"], r"^--cooldown .*got 2$"),
        (["--weight-decay", "0.1"], r"^--weight-decay .*--optimizer muon"),
        (["--threads", "0"], r"^--threads .*got 0$"),
        (["--workers", "-1"], r"^--workers .*got -1"),
        (["--passes", "inf"], r"^--passes .*got inf"),
        (["--save-minutes", "nan"], r"^--save-minutes .*got nan"),
        (["rain100l", "--units", "0"], r"^--units .*got 0$"),
        (["rain100l", "--test-folder"], r"'--test-folder'"),
    ],
)
def test_errors_on_the_command_line_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        train_config(arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "0"], "--limit"),
        (["--conventions"], "--conventions"),
        (["--tile", "-7"], "--tile"),
    ],
)
def test_eval_flag_errors(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        eval_config(flags)


def test_another_program_with_the_flags_of_train() -> None:
    with pytest.raises(UserError, match=r"python -m tools.check_data rain12 --help$"):
        train_config(["rain12", "--lrr", "1"], "python -m tools.check_data")


@dataclass(frozen=True)
class Options:
    """Options of a tool."""

    source: Path
    """File to read."""
    sizes: tuple[str, ...] = ("8x8", "9x9")
    """Sizes."""
    set: tuple[str, ...] = ()
    """Settings."""
    mode: Literal["a", "b"] = "a"
    """Mode."""
    back: bool = False
    """Turn round."""


def options(*arguments: str) -> Options:
    return tool_options(Options, list(arguments), "python -m tools.some", None)


def test_tool_options() -> None:
    assert options("f") == Options(Path("f"))
    given = options("--back", "f", "--set", "a=1", "b=2", "--mode", "b", "--sizes", "1x1")
    assert given == Options(Path("f"), ("1x1",), ("a=1", "b=2"), "b", True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            r"SOURCE.*python -m tools.some --help$",
        ),
        (["f", "g"], r"options: g;"),
        (["f", "--mode", "c"], r"'c'.*'--mode'.*'b'"),
        (["f", "--sizes"], r"^--sizes .*python -m tools.some --help$"),
        (["f", "--size", "1x1"], r"did you mean --sizes\?"),
    ],
)
def test_mistakes_in_tool_options_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        options(*arguments)
    assert "\n" not in str(error.value)


def test_the_test_set_of_an_own_training_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preset's test set is dropped only if it is missing and the user never named it."""
    monkeypatch.chdir(tmp_path)

    def test_folder(*flags: str) -> Path | None:
        data = train_config(["rain100l", *flags]).data
        assert isinstance(data, Folders)
        return data.test_folder

    own, preset = ("--train-folder", "mine"), Path("datasets/Rain100L")
    assert test_folder() == preset
    assert test_folder(*own) is None
    assert test_folder("--test-folder", "None") is None
    assert test_folder(*own, "--test-folder", "nowhere") == Path("nowhere")
    preset.mkdir(parents=True)
    assert test_folder(*own) == preset


def test_show_without_input() -> None:
    with pytest.raises(UserError, match=r"python show.py photo.jpg"):
        show_config(["--weights", "w.pt"])


def test_every_kind_of_data_has_a_preset() -> None:
    kinds = {type(config.data) for config in CONFIGS.values()}
    assert kinds == {Folders, Synthetic}
