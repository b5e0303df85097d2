"""Layouts, patches and modelled rain."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from config.schema import Augmentation, Folders, Heaviness, Synthetic
from data import FolderPairs, Pair, Patches, SyntheticPairs, find_pairs
from data.open import open_pairs
from data.synthetic import SCENES
from utils.errors import UserError
from utils.image import Pixels, to_tensor, write_image
from utils.metrics import score

Picture = Callable[..., Pixels]


def names(folder: Path, *arguments: str) -> list[str]:
    return [pair.name for pair in find_pairs(folder, *arguments)]  # type: ignore[arg-type]


def test_rain100_pairs_match_by_name(rain100_folder: Path, picture: Picture) -> None:
    pairs = FolderPairs(find_pairs(rain100_folder, "rain100"))
    assert [pair.name for pair in pairs] == ["rain-1", "rain-9", "rain-10"]
    assert np.array_equal(pairs[2].clean, picture(seed=10))
    assert np.array_equal(pairs[2].rainy, picture(seed=110))


def test_rain100_with_rainy_images_in_a_subfolder(rain100_folder: Path) -> None:
    (rain100_folder / "rainy").mkdir()
    for file in rain100_folder.glob("rain-*.png"):
        file.rename(rain100_folder / "rainy" / file.name)
    assert names(rain100_folder, "rain100") == ["rain-1", "rain-9", "rain-10"]


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [
        ("rainy/001_in.png", "groundtruth/001_GT.png"),  # Rain12
        ("rain/norain-7x2.png", "norain/norain-7.png"),  # Rain200H
        ("input/a.jpg", "target/a.png"),  # Restormer's folders
    ],
)
def test_two_folders(tmp_path: Path, picture: Picture, rainy: str, clean: str) -> None:
    write_image(tmp_path / rainy, picture(seed=1))
    write_image(tmp_path / clean, picture(seed=2))
    (files,) = find_pairs(tmp_path, "two-folders")
    assert (files.rainy, files.clean) == (tmp_path / rainy, tmp_path / clean)


@pytest.fixture
def masked_folder(tmp_path: Path, picture: Picture) -> Path:
    """Three pairs of two clips; their masks know the left half."""
    folder = tmp_path / "masked"
    half = np.zeros((24, 32, 3), np.uint8)
    half[:, :16] = 255
    for seed, name in enumerate(("a_1", "a_10", "b_2")):
        write_image(folder / "rainy" / f"{name}.png", picture(seed=seed))
        write_image(folder / "clean" / f"{name}.png", picture(seed=seed + 10))
        write_image(folder / "mask" / f"{name}.png", half)
    return folder


def test_masks_belong_to_the_pairs(masked_folder: Path, picture: Picture) -> None:
    pairs = FolderPairs(find_pairs(masked_folder, "masked"))
    assert [pair.name for pair in pairs] == ["a_1", "a_10", "b_2"]
    for pair in pairs:
        assert pair.mask is not None
        assert pair.mask[:, :16].all()
        assert not pair.mask[:, 16:].any()
    mask = masked_folder / "mask" / "a_10.png"
    for wrong in (np.zeros((24, 32, 3), np.uint8), picture(24, 30)):
        write_image(mask, wrong)
        with pytest.raises(UserError, match=r"a_10\.png: expected a mask of 32x24 pixels"):
            list(FolderPairs(find_pairs(masked_folder, "masked")))
    mask.unlink()
    with pytest.raises(UserError, match="no mask for 1 of 3 images: expected a_10"):
        find_pairs(masked_folder, "masked")


def test_pairs_whose_names_match_a_pattern(masked_folder: Path) -> None:
    data = Folders("mine", None, masked_folder, layout="masked")
    assert [pair.name for pair in open_pairs(data, "test", "a*")] == ["a_1", "a_10"]
    with pytest.raises(UserError, match="named like 'c\\*': the first is a_1"):
        open_pairs(data, "test", "c*")
    with pytest.raises(UserError, match="--match needs images on disk"):
        open_pairs(Synthetic(), "test", "a*")


def test_photographs_have_no_pairs(masked_folder: Path) -> None:
    with pytest.raises(UserError, match=r"has no ground truth: only eval\.py"):
        find_pairs(masked_folder / "rainy", "photographs")


def test_side_by_side_order_is_explicit(tmp_path: Path, picture: Picture) -> None:
    left, right = picture(seed=1), picture(seed=2)
    write_image(tmp_path / "1.png", np.concatenate([left, right], axis=1))
    pair = FolderPairs(find_pairs(tmp_path, "side-by-side", "clean-rainy"))[0]
    assert np.array_equal(pair.clean, left)
    assert np.array_equal(pair.rainy, right)
    swapped = FolderPairs(find_pairs(tmp_path, "side-by-side", "rainy-clean"))[0]
    assert np.array_equal(swapped.rainy, left)


def test_slices_keep_the_pairs(rain100_folder: Path) -> None:
    pairs = FolderPairs(find_pairs(rain100_folder, "rain100"))
    assert [pair.name for pair in pairs[1:]] == ["rain-9", "rain-10"]
    kept = FolderPairs(find_pairs(rain100_folder, "rain100"), keep=True)
    assert pairs.streams
    assert not kept.streams
    assert np.array_equal(pairs[1:][0].clean, kept[1].clean)


def test_layout_errors(tmp_path: Path, rain100_folder: Path, picture: Picture) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        find_pairs(tmp_path / "nowhere", "rain100")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty"):
        find_pairs(tmp_path / "empty", "side-by-side")
    with pytest.raises(UserError, match=r"rainy or rain or input"):
        find_pairs(rain100_folder, "two-folders")
    write_image(tmp_path / "other" / "a.png", picture())
    with pytest.raises(UserError, match=r"no norain-N.png in .*other"):
        find_pairs(tmp_path / "other", "rain100")
    (rain100_folder / "norain-9.png").unlink()
    write_image(rain100_folder / "norain-8.png", picture())
    with pytest.raises(UserError, match=r"^2 .*rain-9.png, norain-8.png"):
        find_pairs(rain100_folder, "rain100")


def test_pair_errors(tmp_path: Path, rain100_folder: Path, picture: Picture) -> None:
    write_image(rain100_folder / "rain-9.png", picture(24, 30))
    with pytest.raises(UserError, match=r"rain-9.png .*norain-9.png .*30x24 and 32x24"):
        FolderPairs(find_pairs(rain100_folder, "rain100"))
    whole = (rain100_folder / "rain-1.png").read_bytes()
    (rain100_folder / "rain-9.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"rain-9.png"):
        FolderPairs(find_pairs(rain100_folder, "rain100"))
    write_image(rain100_folder / "rain-9.png", picture().astype(np.uint16))
    with pytest.raises(UserError, match="16 bits"):
        FolderPairs(find_pairs(rain100_folder, "rain100"))
    write_image(tmp_path / "wide" / "1.png", picture(8, 9))
    with pytest.raises(UserError, match=r"9 pixels"):
        FolderPairs(find_pairs(tmp_path / "wide", "side-by-side"))
    write_image(tmp_path / "wide" / "1.jpg", picture(8, 10))
    with pytest.raises(UserError, match=r"1.jpg and 1.png"):
        find_pairs(tmp_path / "wide", "side-by-side")


# --- patches ------------------------------------------------------------------------------------


def ramp_pair(height: int = 20, width: int = 24, name: str = "ramp") -> Pair:
    """Red and green encode the pixel position; the clean image has 100 in blue, the rainy one 0."""
    rainy = np.zeros((height, width, 3), dtype=np.uint8)
    rainy[..., 0] = np.arange(height)[:, None]
    rainy[..., 1] = np.arange(width)
    clean = rainy.copy()
    clean[..., 2] = 100
    return Pair(name, rainy, clean)


def test_patches_are_a_function_of_seed_and_index() -> None:
    pairs = [ramp_pair(), ramp_pair(30, 16)]
    one, two, other = Patches(pairs, 8, 0), Patches(pairs, 8, 0), Patches(pairs, 8, 1)
    backwards = {i: two[i] for i in reversed(range(20))}
    assert all(torch.equal(one[i].rainy, backwards[i].rainy) for i in range(20))
    assert any(not torch.equal(one[i].rainy, other[i].rainy) for i in range(20))
    assert any(not torch.equal(one[i].rainy, one[i + 2].rainy) for i in range(20))


def test_patches_are_the_same_for_any_number_of_workers() -> None:
    patches = Patches([ramp_pair()], 8, 0, "jitter")
    streams = [
        list(islice(DataLoader(patches, 2, sampler=range(4, 16), num_workers=n), 6)) for n in (0, 2)
    ]
    for single, parallel in zip(*streams, strict=True):
        assert torch.equal(single.rainy, parallel.rainy)
        assert torch.equal(single.clean, parallel.clean)


def test_a_round_visits_every_pair_once() -> None:
    images = [np.full((8, 8, 3), i, dtype=np.uint8) for i in range(5)]
    pairs = [Pair(str(i), image, image) for i, image in enumerate(images)]
    patches = Patches(pairs, 8, 0)
    orders = [
        [round(patches[r * 5 + i].rainy.max().item() * 255) for i in range(5)] for r in (0, 1)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == [0, 1, 2, 3, 4]
    assert orders[0] != orders[1]


def test_crops_reach_every_border() -> None:
    patches = Patches([ramp_pair(10, 9)], 8, 0)
    corners = {tuple((patches[i].rainy[:2, 0, 0] * 255).round().int().tolist()) for i in range(100)}
    assert corners == {(y, x) for y in range(3) for x in range(2)}
    assert Patches([ramp_pair(8, 8)], 8, 0)[3].rainy.shape == (3, 8, 8)


@pytest.mark.parametrize("augment", get_args(Augmentation))
def test_rainy_and_clean_patches_are_aligned(augment: Augmentation) -> None:
    patches = Patches([ramp_pair()], 8, 0, augment)
    for index in range(30):
        patch = patches[index]
        assert torch.equal(patch.rainy[:2], patch.clean[:2])
        if augment != "jitter":  # rotation adds black corners
            assert patch.clean[2].unique().tolist() == pytest.approx([100 / 255])


def test_eight_draws_all_eight_variants() -> None:
    pair = ramp_pair(8, 8)
    patches = Patches([pair], 8, 0, "eight")
    seen = {patches[i].rainy.numpy().tobytes() for i in range(100)}
    whole = to_tensor(pair.rainy)
    turned = {
        torch.rot90(flipped, turns, (1, 2)).contiguous().numpy().tobytes()
        for flipped in (whole, whole.flip(2))
        for turns in range(4)
    }
    assert seen == turned


def test_number_of_variants_per_augmentation() -> None:
    pair = ramp_pair(8, 8)
    for augment, least, most in (("none", 1, 1), ("flip", 2, 2), ("jitter", 50, 60)):
        patches = Patches([pair], 8, 0, cast("Augmentation", augment))
        seen = {patches[i].rainy.numpy().tobytes() for i in range(60)}
        assert least <= len(seen) <= most


def test_patch_larger_than_an_image() -> None:
    with pytest.raises(UserError, match=r"21x21 .*ramp .*24x20.*--patch-size"):
        Patches([ramp_pair(40, 40), ramp_pair()], 21, 0)


# --- modelled rain ------------------------------------------------------------------------------


def test_synthetic_pairs_are_a_function_of_seed_and_index() -> None:
    first = SyntheticPairs("train", 3, 64)
    again = SyntheticPairs("train", 5, 64)
    assert all(np.array_equal(a.rainy, b.rainy) for a, b in zip(first, again, strict=False))
    other = SyntheticPairs("train", 3, 64, seed=1)
    assert not np.array_equal(first[0].rainy, other[0].rainy)


def test_train_and_test_scenes_are_disjoint() -> None:
    assert not set(SCENES["train"]) & set(SCENES["test"])


def test_rain_brightens_and_heavy_rain_has_lower_psnr() -> None:
    psnr = {}
    for heaviness in get_args(Heaviness)[:2]:
        pairs = SyntheticPairs("test", 4, 96, heaviness)
        for pair in pairs:
            assert pair.rainy.mean() > pair.clean.mean()
            assert pair.rainy.shape == pair.clean.shape == (96, 96, 3)
        scores = [score(to_tensor(p.rainy), to_tensor(p.clean), "y").psnr.item() for p in pairs]
        psnr[heaviness] = np.mean(scores)
    assert 22 < psnr["light"] < 34
    assert psnr["heavy"] < psnr["light"] - 4


def test_mixed_rain_puts_both_kinds_on_every_scene() -> None:
    names = [pair.name.split("-", 1)[1] for pair in SyntheticPairs("test", 6, 32, "mixed")]
    kinds = ("light", "light", "heavy", "heavy", "light", "light")
    assert names == [f"{n}-{k}" for n, k in zip(("chelsea", "coffee") * 3, kinds, strict=True)]


@pytest.mark.parametrize(
    ("clean", "rainy"),
    [
        ("901", [f"901_{i}" for i in (1, 2, 14)]),  # Rain1400
        ("a_1_leftImg8bit", ["a_1_leftImg8bit_rain_alpha_0.01_beta_0.005_dropsize_0.01"]),
    ],
)
def test_several_rainy_images_of_one_scene(
    tmp_path: Path, picture: Callable[..., Pixels], clean: str, rainy: list[str]
) -> None:
    for seed, scene in enumerate((clean, clean.replace("1", "2"))):
        write_image(tmp_path / "ground_truth" / f"{scene}.png", picture(seed=seed))
        for name in rainy:
            file = f"{scene}{name.removeprefix(clean)}.png"
            write_image(tmp_path / "rainy_image" / file, picture(seed=9))
    pairs = find_pairs(tmp_path, "two-folders")
    assert [pair.name for pair in pairs[: len(rainy)]] == rainy
    assert [pair.clean.stem for pair in pairs[: len(rainy)]] == [clean] * len(rainy)
    assert len(pairs) == 2 * len(rainy)
    write_image(tmp_path / "rainy_image" / "7_1.png", picture())
    with pytest.raises(UserError, match=r"7_1\.png"):
        find_pairs(tmp_path, "two-folders")
