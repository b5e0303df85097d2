"""The reports: their content, and how they behave in a browser."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import av
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import eval as eval_script
import show
from config import WEIGHTS
from data.pairs import Pair
from evaluation.methods import Comparison, Method
from evaluation.scores import PairScore, Scores, strip_writer, write_scores
from report.page import write_score_report
from tools import report as report_tool
from utils.errors import UserError
from utils.image import Pixels, read_image, write_image
from utils.photo import record

Picture = Callable[..., Pixels]

ODD = 'a<b>&"c #1?'
SHIPPED = ["--weights", str(WEIGHTS / "jdnet-small-real.safetensors")]
GAINS = {ODD: 3.0, "worst": -1.0, "dry": 0.0, "best": math.inf, "pair-10": 2.5, "pair-9": 10.0}
GAINS |= {f"other-{i}": 4.0 + i / 10 for i in range(6)}  # 12 pairs, as Rain12 has


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and its text outside style and script."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("style", "script"):
            self.text += data

    def attributes(self, name: str, *tags: str) -> list[str]:
        return [a[name] for tag, a in self.elements if name in a and (not tags or tag in tags)]


def linked(page: Path) -> set[Path]:
    """The files that a page loads or links: all are local and exist."""
    parsed = Parsed(page)
    assert not re.search(r"url\((?!#)|@import|srcset", page.read_text())
    urls = {*parsed.attributes("src"), *parsed.attributes("href")} - {"data:,"}
    anchors = {url for url in urls if url.startswith("#")}
    assert anchors <= {f"#{name}" for name in parsed.attributes("id")}
    assert not [url for url in urls if ":" in url or url.startswith("/")]
    files = {(page.parent / unquote(url)).resolve() for url in urls - anchors}
    assert not [file for file in files if not file.is_file()]
    return files


def pixels(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def write_results(folder: Path, strips: int = len(GAINS)) -> None:
    """Write scores and strips of 12 pairs with the gains above; "dry" is a pair without rain."""
    view = strip_writer(folder / "strips", strips)
    rows = []
    for index, (name, gain) in enumerate(GAINS.items()):
        view(index, Pair(name, pixels(index), pixels(200)), pixels(100 + index))
        rainy = math.inf if name == "dry" else 20.0
        rows.append(PairScore(name, "y", rainy, 0.8, rainy + gain, 0.9))
        rows.append(PairScore(name, "rgb", 1.0, 0.1, 2.0, 0.2))
    weights = {"weights": ODD, "sha256": "0123abcd", "network": "jdnet", "arguments": {}}
    data = {"dataset": "rain12", "test_folder": "x", "layout": "two-folders"}
    about = {**weights, "data": data, "provenance": {"gpu": ""}, "strips": strips}
    write_scores(folder, Scores(tuple(rows)), about)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    write_results(folder)
    return write_score_report(folder)


def test_report_contains_the_scores_and_needs_nothing_from_outside(report: Path) -> None:
    page = Parsed(report)
    images = list(report.parent.glob("*.png"))
    assert linked(report) == {file.resolve() for file in images}
    assert page.attributes("loading", "img") == ["lazy"] * 2 * len(GAINS)
    assert set(page.attributes("width", "img")) == {"32"}
    assert page.text.count(ODD) == 4  # row, image, method, weights
    words = " ".join(page.text.split())
    for text in ("rain12, 12 pairs", "sha256 0123abcd", "+3.00 20.00 23.00 0.8000"):
        assert text in words
    assert "rainy input inf / 0.8000 1.00 / 0.1000" in words
    assert "gpu" not in words  # empty


def test_published_rows_are_in_their_own_column(report: Path) -> None:
    cells = re.split(r"<t[hd]\b", report.read_text())
    cells = [re.sub(r"^[^>]*>|<.*?>|\s+$", "", cell).split("\n")[0] for cell in cells]
    header = ["method", "y", "rgb", "rgb-jdnet", "y-prenet"]
    assert header == cells[1:6]
    published = cells.index("published, each in its own convention")
    assert cells[published + 1 :][:10] == [
        *["JDNet, paper (Rain100H model)", "", "", "37.02 / 0.97", ""],
        *["PReNet (Rain100L model)", "", "", "", "36.66 / 0.961"],
    ]


def test_rows_and_images_begin_with_the_worst_gain(report: Path) -> None:
    page = Parsed(report)
    order = sorted(range(len(GAINS)), key=lambda index: list(GAINS.values())[index])
    assert page.attributes("data-figure") == [f"{index:04}-derained.png" for index in order]
    assert page.attributes("data-figure") == page.attributes("id", "figure")
    gains = [value.replace("Infinity", "inf") for value in page.attributes("data-value")[::5]]
    assert [float(gain) for gain in gains] == pytest.approx(sorted(GAINS.values()))
    for index in order:
        for kind, seed in (("rainy", index), ("derained", 100 + index)):
            image = read_image(report.parent / f"{index:04}-{kind}.png")
            assert np.array_equal(image, pixels(seed))


def test_the_same_scores_give_the_same_bytes(report: Path, tmp_path: Path) -> None:
    first = report.read_bytes()
    write_results(tmp_path)
    assert write_score_report(tmp_path).read_bytes() == first
    assert b"<svg" in first
    assert b"<metadata" not in first  # of the chart, with its date


def test_pairs_without_a_strip_have_no_slider(tmp_path: Path) -> None:
    """A strip of an earlier run, or of none, is not shown beside the scores."""
    write_results(tmp_path)
    write_results(tmp_path, strips=2)
    (tmp_path / "strips" / "worst.png").unlink()
    report_tool.main([str(tmp_path)])
    page = tmp_path / "report" / "index.html"
    shown = {tmp_path / "report" / f"0000-{kind}.png" for kind in ("rainy", "derained")}
    assert linked(page) == {file.resolve() for file in shown}
    assert Parsed(page).text.count("worst") == 3  # row, summary, button


def test_reports_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"derained\.jsonl.*scores\.json"):
        report_tool.main([str(tmp_path)])
    write_results(tmp_path)
    (tmp_path / "scores.csv").write_text("name,psnr\na,x\n")
    with pytest.raises(UserError, match=r"scores\.csv"):
        report_tool.main([str(tmp_path)])
    (tmp_path / "scores.csv").unlink()
    with pytest.raises(UserError, match=r"scores\.csv"):
        report_tool.main([str(tmp_path)])


def test_eval_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--test-pairs", "2", "--image-size", "32"]
    eval_script.main([*data, *SHIPPED, "--report", "--output", str(tmp_path)])
    report = tmp_path / "report" / "index.html"
    assert f"report: {report}\n" in capsys.readouterr().out
    assert len(linked(report)) == 4
    assert "jdnet-small-real.safetensors" in Parsed(report).text


def test_show_writes_a_report(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    write_image(folder / f"{ODD}.png", picture())
    write_image(folder / "wide.png", picture(12, 1700).astype(np.uint16) * 257)
    with av.open(str(folder / "clip.mp4"), "w") as clip:
        stream = clip.add_stream("libx264", 10)
        stream.width, stream.height = 32, 24
        clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture())))
        clip.mux(stream.encode(None))
    show.main([str(folder), *SHIPPED, "--report", "--output", str(output)])
    report = output / "report" / "index.html"
    assert f"report: {report}\n" in capsys.readouterr().out
    results = {output / name for name in (f"{ODD}.png", "wide.png", "clip.mp4")}
    previews = set(report.parent.glob("*.jpg"))
    assert linked(report) == {file.resolve() for file in results | previews}
    assert len(previews) == 4
    preview = read_image(report.parent / "0002-rainy.jpg")
    assert preview.shape == (11, 1600, 3)
    assert preview.std() > 10
    page = Parsed(report)
    assert "PSNR" not in page.text
    assert page.attributes("data-value", "td")[:2] == ["32", "24"]
    assert len(page.attributes("aria-label", "input")) == 2  # none for the video
    assert "jdnet-small-real.safetensors" in page.text

    (output / "wide.png").unlink()  # as if interrupted
    show.main([str(folder), *SHIPPED, "--report", "--output", str(output), "--skip-existing"])
    assert linked(report) == {file.resolve() for file in results | previews}

    (folder / "wide.png").unlink()  # its result is listed without a slider
    (output / f"{ODD}.png").unlink()
    report_tool.main([str(output)])
    results.remove(output / f"{ODD}.png")
    assert linked(report) == {file.resolve() for file in results}
    (output / "wide.png").unlink()
    (output / "clip.mp4").unlink()
    with pytest.raises(UserError, match=r"derained\.jsonl"):
        report_tool.main([str(output)])


def test_the_record_grows_from_run_to_run(tmp_path: Path, picture: Picture) -> None:
    """With the facts of each run; a derained file keeps its place."""
    for name in ("b", "a"):
        write_image(tmp_path / f"{name}.png", picture())
        write_image(tmp_path / "out" / f"{name}.png", picture())
    first, second = ({"weights": {"weights": name, "arguments": (1, 2)}} for name in ("one", "two"))

    for names, facts in ((("b.png", "a.png"), first), (("b.png",), second)):
        records = record.Record(tmp_path / "out", facts)
        for name in names:
            records.add(tmp_path / name, tmp_path / "out" / name, 1.5)
    results, runs = record.read(tmp_path / "out")
    assert [(r.source.name, r.size, r.seconds, r.run) for r in results] == [
        ("b.png", (32, 24), 1.5, 1),
        ("a.png", (32, 24), 1.5, 0),
    ]
    assert runs == json.loads(json.dumps([first, second]))
    report_tool.main([str(tmp_path / "out")])
    page = Parsed(tmp_path / "out" / "report" / "index.html")
    words = " ".join(page.text.split())
    assert "weights, run 1 weights one arguments [1, 2] weights, run 2 weights two" in words
    assert "24 pixels, 1.5 s, run 2" in words


@pytest.mark.parametrize("text", ["", "[]\n", '{"mine": 1}\n', '{"result": "a.png", "si'])
def test_a_damaged_record_costs_nothing(tmp_path: Path, picture: Picture, text: str) -> None:
    write_image(tmp_path / "a.png", picture())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "derained.jsonl").write_text(text)
    show.main([str(tmp_path / "a.png"), *SHIPPED, "--output", str(tmp_path / "out")])
    assert (tmp_path / "out" / "derained.jsonl").read_text().startswith(text)
    results, _ = record.read(tmp_path / "out")
    assert [result.target.name for result in results] == ["a.png"]


def test_a_record_that_cannot_be_written_costs_no_picture(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.png", picture())
    (tmp_path / "out" / "derained.jsonl").mkdir(parents=True)
    show.main([str(tmp_path / "a.png"), *SHIPPED, "--output", str(tmp_path / "out")])
    assert read_image(tmp_path / "out" / "a.png").shape == (24, 32, 3)
    assert re.search(r"note: .*a\.png.*derained\.jsonl", capsys.readouterr().err)


def test_the_report_links_a_video_that_became_mov(tmp_path: Path, picture: Picture) -> None:
    with av.open(str(tmp_path / "clip.avi"), "w") as clip:
        video, sound = clip.add_stream("mpeg4", 10), clip.add_stream("pcm_alaw", 8000)
        video.width, video.height = 32, 24
        clip.mux(video.encode(av.VideoFrame.from_ndarray(picture())))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.rate = 8000
        clip.mux(sound.encode(silence))
        clip.mux(video.encode(None))
    output = tmp_path / "out"
    show.main([str(tmp_path / "clip.avi"), *SHIPPED, "--report", "--output", str(output)])
    assert linked(output / "report" / "index.html") == {(output / "clip.mov").resolve()}


def test_a_report_never_overwrites_inputs(tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "report"
    write_image(folder / "0000-rainy.jpg", picture())
    before = (folder / "0000-rainy.jpg").read_bytes()
    with pytest.raises(UserError, match=r"0000-rainy\.jpg"):
        show.main([str(folder), *SHIPPED, "--report", "--output", str(tmp_path)])
    assert (folder / "0000-rainy.jpg").read_bytes() == before


# --- comparisons --------------------------------------------------------------------------------

METHODS = ("JDNet", "Other & co")
SCENES = ("scene-1", "scene-2", ODD)
BAD = (slice(20, 30), slice(70, 90))  # where the second method fails in scene-2


def comparison_images(scene: int) -> tuple[Pixels, tuple[Pixels, ...]]:
    """A clean image of 96x120 pixels, and what the methods made of it."""
    clean = np.random.default_rng(scene).integers(50, 150, (96, 120, 3), dtype=np.uint8)
    first, second = clean + np.uint8(2 + scene), clean + np.uint8(1)
    if scene == 1:
        second[BAD] += np.uint8(100)
        second[80:] = 0  # outside the mask
    return clean, (first, second)


def write_comparison(folder: Path, strips: int = len(SCENES)) -> None:
    """Write the scores and strips of two methods; the mask of scene-2 leaves out its last rows."""
    results = []
    for place, name in enumerate(METHODS):
        view, rows = strip_writer(folder / f"m{place}" / "strips", strips), []
        for i, scene in enumerate(SCENES):
            clean, derained = comparison_images(i)
            known = np.ones((96, 120), np.bool_)
            known[80:] = False
            pair = Pair(scene, clean + np.uint8(20), clean, known if i == 1 else None)
            view(i, pair, derained[place])
            psnr = math.inf if (place, i) == (1, 2) else 30.0 + place + i * (1 - 2 * place)
            rows += [PairScore(scene, c, 20.0 + i, 0.5, psnr, 0.9) for c in ("y", "rgb")]
        scores = Scores(tuple(rows), (0.25,) * len(SCENES))
        about = {"weights": f"w{place}", "sha256": "01", "network": name, "arguments": {}}
        data = {"dataset": "x", "release": "old", "test_folder": "x", "layout": "masked"}
        write_scores(folder / f"m{place}", scores, {**about, "data": data, "strips": strips})
        results.append(scores)
    methods = (
        Method("m0", METHODS[0], "w_0", 1_073_483, 33.04e9, 0.25),
        Method("m1", METHODS[1], "w1", None, None, None),
    )
    Comparison(("x, 3 pairs",), (120, 96), methods, tuple(results)).write(folder)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    write_comparison(folder)
    report_tool.main([str(folder)])
    return folder / "report" / "index.html"


def test_a_comparison_has_one_table_also_to_copy(compared: Path) -> None:
    words = " ".join(Parsed(compared).text.split())
    assert "network weights parameters GMAC 120x96 s per image y rgb rainy input" in words
    assert "JDNet w_0 1,073,483 33.0 0.25 31.00 / 0.9000 31.00 / 0.9000 Other & co w1 inf" in words
    assert "| JDNet | w_0 | 1,073,483 | 33.0 | 0.25 | 31.00 / 0.9000 |" in words
    assert r"JDNet & w\_0 & 1,073,483 & 33.0 & 0.25 & 31.00 / 0.9000 & 31.00 / 0.9000 \\" in words
    assert r"Other \& co & w1 &  &  &  & inf / 0.9000".replace("  ", " ") in words
    assert r"\begin{tabular}{llrrrrr}" in words
    assert words.count("scene-1 20.00 30.00 31.00 0.5000 0.9000 0.9000") == 2  # in y and in rgb


def test_a_comparison_shows_all_versions_of_every_scene(compared: Path) -> None:
    images = {file.resolve() for file in compared.parent.glob("*.png")}
    shown = Parsed(compared)
    urls = [json.loads(text) for text in shown.attributes("data-urls")]
    assert linked(compared) | {(compared.parent / u).resolve() for us in urls for u in us} == images
    for i, versions in enumerate(urls):
        clean, (first, second) = comparison_images(i)
        expected = (clean + np.uint8(20), first, second, clean)
        for url, image in zip(versions, expected, strict=True):
            assert np.array_equal(read_image(compared.parent / url)[..., :3], image)
    alpha = read_image(compared.parent / urls[1][3])[..., 3]
    assert (alpha[:80] == 255).all()
    assert (alpha[80:] == 0).all()


def test_regions_are_where_methods_fail_and_differ(compared: Path) -> None:
    """The second method fails in scene-2; the first is farthest off in the last scene."""
    words = " ".join(Parsed(compared).text.split())
    worst, different = words.split("Worst regions")[1].split("Most different regions")
    x, y = map(int, re.findall(r"Other & co scene-2, 64 . 64 pixels at (\d+), (\d+)", worst)[0])
    assert 0 <= y <= 20  # all of the failure lies in the region, and the region in the mask
    assert 26 <= x <= 70
    assert f"JDNet {ODD}, 64" in worst
    assert different.index("scene-2, 64") < min(different.index(s) for s in ("scene-1", ODD))
    squares = np.full((64, 64), 1.0)
    squares[:10, :20] = 101.0**2  # wherever it lies in the region
    assert f"Other & co {10 * math.log10(255**2 / squares.mean()):.1f} dB" in worst
    for i, image in enumerate(comparison_images(1)[1]):
        crop = read_image(compared.parent / f"worst-1-{i + 1}.png")
        assert np.array_equal(crop, image[y : y + 64, x : x + 64])


def test_scenes_without_strips_are_in_the_table_only(tmp_path: Path) -> None:
    write_comparison(tmp_path)
    write_comparison(tmp_path, strips=1)
    report_tool.main([str(tmp_path)])
    page = Parsed(tmp_path / "report" / "index.html")
    assert len(page.attributes("data-urls")) == 1
    assert page.attributes("data-figure").count("") == 2 * 2
    (tmp_path / "m1" / "strips" / "scene-1.png").unlink()
    report_tool.main([str(tmp_path)])
    page = Parsed(tmp_path / "report" / "index.html")
    assert not page.attributes("src")
    assert "Side by side" not in page.text
    (tmp_path / "m1" / "scores.csv").unlink()
    with pytest.raises(UserError, match=r"no scores in .*m1"):
        report_tool.main([str(tmp_path)])
    (tmp_path / "compared.json").write_text("{}")
    with pytest.raises(UserError, match=r"compared\.json is damaged"):
        report_tool.main([str(tmp_path)])


@pytest.mark.slow
def test_eval_compares_on_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--test-pairs", "2", "--image-size", "32", "--conventions", "rgb"]
    light = str(WEIGHTS / "jdnet-small-rain100l.safetensors")
    output = ["--output", str(tmp_path)]
    eval_script.main([*data, "--compare", SHIPPED[1], light, "--report", *output])
    assert f"report: {tmp_path / 'report' / 'index.html'}\n" in capsys.readouterr().out
    page = Parsed(tmp_path / "report" / "index.html")
    assert len(page.attributes("data-urls")) == 2
    assert "JDNet jdnet-small-rain100l PSNR" in " ".join(page.text.split())
    eval_script.main([*data, *SHIPPED, "--report", *output])  # the page is that of the last run
    assert "Mean gain" in Parsed(tmp_path / "report" / "index.html").text


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium without a window: $CHROMIUM, or one that is installed."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium found: install chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found)


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    yield from opened(browser, report)


@pytest.fixture
def compared_page(browser: Browser, compared: Path) -> Iterator[Page]:
    yield from opened(browser, compared)


def opened(browser: Browser, report: Path) -> Iterator[Page]:
    """A report on a touch screen. No message, error or request to a server may occur."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("requestfailed", lambda request: noise.append(f"failed: {request.url}"))
    page.on("request", lambda request: noise.append(request.url))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert not [text for text in noise if not text.startswith("file://")]


def names(page: Page, what: str = "#table tbody th") -> list[str]:
    return page.locator(what).all_inner_texts()


def test_browser_sorts_table_and_images(page: Page) -> None:
    by_gain = sorted(GAINS, key=lambda name: GAINS[name])
    heading = page.locator("th", has=page.get_by_role("button", name="gain, dB"))
    worst, best = (page.get_by_role("button", name=f"{n} first") for n in ("worst", "best"))
    assert names(page) == names(page, "figcaption b") == by_gain
    assert heading.get_attribute("aria-sort") == "ascending"
    best.click()
    assert names(page) == names(page, "figcaption b") == by_gain[::-1]
    assert heading.get_attribute("aria-sort") == "descending"
    assert best.get_attribute("aria-pressed") == "true"
    assert worst.get_attribute("aria-pressed") == "false"
    heading.get_by_role("button").press("Enter")
    assert names(page) == names(page, "figcaption b") == by_gain
    page.get_by_role("button", name="name").tap()
    assert heading.get_attribute("aria-sort") is None
    assert names(page).index("pair-9") + 1 == names(page).index("pair-10")


def test_browser_moves_the_slider_by_keyboard_mouse_and_touch(page: Page) -> None:
    pair = page.locator(".pair").first
    slider = pair.get_by_role("slider")
    rainy = pair.locator(".before")

    def shown() -> float:
        """Percentage of the width that the rainy image covers; the slider must agree."""
        right = re.search(r"calc\(100% - ([\d.]+)%\)|inset\(0px ([\d.]+)%", clip())
        assert right, clip()
        percent = float(right[1]) if right[1] else 100 - float(right[2])
        assert percent == pytest.approx(float(slider.input_value()))
        return percent

    def clip() -> str:
        return str(rainy.evaluate("image => getComputedStyle(image).clipPath"))

    assert shown() == 50
    slider.press("ArrowRight")
    assert shown() == 51
    slider.press("Home")
    assert shown() == 0

    pair.scroll_into_view_if_needed()
    box = pair.bounding_box()
    assert box
    x, y, width = box["x"], box["y"] + box["height"] / 2, box["width"]
    page.mouse.click(x + 0.8 * width, y)
    assert shown() == pytest.approx(80, abs=1)
    page.mouse.down()
    page.mouse.move(x + 0.3 * width, y, steps=3)
    page.mouse.up()
    assert shown() == pytest.approx(30, abs=1)
    page.mouse.move(x + 0.9 * width, y)  # without a button pressed
    assert shown() == pytest.approx(30, abs=1)

    touch = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.6), ("touchMove", 0.7)):
        points = [{"x": x + share * width, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert shown() == pytest.approx(70, abs=1)


def test_browser_scrolls_a_telephone_only_vertically(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("img").last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].at(-1).naturalWidth == 32")
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 24, 26)"]


def test_browser_compares_any_two_methods(compared_page: Page) -> None:
    page = compared_page
    pair = page.locator(".pair").first

    def shown() -> list[str]:
        images = pair.locator("img").all()
        return [str(image.get_attribute("src")) for image in reversed(images)]

    labels = ["rainy", *METHODS, "ground truth"]
    assert page.locator("#left option").all_inner_texts() == labels
    assert shown() == ["0000-1.png", "0000-2.png"]
    page.select_option("#left", "rainy")
    assert shown() == ["0000-0.png", "0000-2.png"]
    page.select_option("#right", "ground truth")
    assert shown() == ["0000-0.png", "0000-3.png"]
    assert pair.locator("span").all_inner_texts() == ["rainy", "ground truth"]
    assert page.locator(".pair").last.locator("span").first.inner_text() == "rainy"


def test_browser_sorts_the_scores_of_every_convention(compared_page: Page) -> None:
    page = compared_page
    page.select_option("#convention", "rgb")
    assert page.locator(".sheet:visible").count() == 1
    heading = page.locator(".sheet:visible").get_by_role("button", name="Other & co PSNR")
    heading.click()
    rows = ".sheet:visible tbody th"
    by_psnr = ["scene-2", "scene-1", ODD]  # 30, 31, inf
    assert names(page, rows) == names(page, "figcaption:not(.crops *) b") == by_psnr
    heading.click()
    assert names(page, rows) == names(page, "figcaption:not(.crops *) b") == by_psnr[::-1]
    page.select_option("#convention", "y")
    assert names(page, rows) == list(SCENES)


def test_browser_copies_the_table(compared_page: Page) -> None:
    page = compared_page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("the table in LaTeX").click()
    page.get_by_role("button", name="copy").click()
    page.get_by_role("button", name="copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[:2] == ["% x, 3 pairs: PSNR / SSIM", r"\begin{tabular}{llrrrrr}"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
