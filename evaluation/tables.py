"""Tables of scores: one network with published results, or a comparison of several networks."""

from collections.abc import Sequence
from statistics import fmean, median

from config import facts_of
from config.reference import Published
from config.schema import Folders, Synthetic
from evaluation.scores import Scores
from models import Derainer
from utils.runtime import count_macs, count_parameters


def table(scores: Scores, data: Folders | Synthetic, method: str) -> str:
    """Format scores as aligned text, with rows for the rainy input and published results.

    Several test sets get a table each, and one of their averages.

    Args:
        scores: scores of the network.
        data: the dataset.
        method: label of the network's row.
    """
    sets = scores.sets
    parts = [*sets.items(), ("average", scores)] if len(sets) > 1 else sets.items()
    return "\n\n\n".join(_table(part, data, name, method) for name, part in parts)


def _table(scores: Scores, data: Folders | Synthetic, name: str, method: str) -> str:
    published = published_rows(data, scores, name)
    names = ["rainy input", method, *(row.method for row in published)]
    first = max(map(len, names)) + 2
    lines = [
        title(data, scores.pairs, name),
        "",
        " " * first + "".join(f"{c:>18}" for c in scores.conventions),
        " " * first + "      PSNR    SSIM" * len(scores.conventions),
    ]
    for label, prefix in (("rainy input", "rainy_"), (method, "")):
        cells = [
            f"{scores.mean(c, prefix + 'psnr'):>10.2f}{scores.mean(c, prefix + 'ssim'):>8.4f}"
            for c in scores.conventions
        ]
        lines.append(f"{label:<{first}}" + "".join(cells))
    if published:
        lines.append("published, each in its own convention:")
    for row in published:
        cell = f"{row.psnr:>10.2f}{row.ssim:>8g}"
        cells = [cell if c == row.convention else " " * 18 for c in scores.conventions]
        if row.convention not in scores.conventions:
            cells = [f"{cell.lstrip()} in {row.convention}"]
        lines.append((f"{row.method:<{first}}" + "".join(cells)).rstrip())
    return "\n".join(lines)


def comparison(
    results: Sequence[Scores],
    derainers: Sequence[Derainer],
    data: Folders | Synthetic,
    size: tuple[int, int],
) -> str:
    """Format scores and costs of several networks on one dataset as a Markdown table.

    Several test sets get a table each, and one of their averages.

    Args:
        results: scores of each network.
        derainers: the networks.
        data: the dataset.
        size: height and width for which multiply-adds are counted.
    """
    sets = [scores.sets for scores in results]
    parts = [(name, [each[name] for each in sets]) for name in sets[0]]
    parts += [("average", list(results))] * (len(parts) > 1)
    return "\n\n".join(_comparison(part, derainers, data, name, size) for name, part in parts)


def _comparison(
    results: Sequence[Scores],
    derainers: Sequence[Derainer],
    data: Folders | Synthetic,
    name: str,
    size: tuple[int, int],
) -> str:
    height, width = size
    conventions = results[0].conventions
    first = results[0]
    rainy = (
        f"{first.mean(c, 'rainy_psnr'):.2f} / {first.mean(c, 'rainy_ssim'):.4f}"
        for c in conventions
    )
    header = ["network", "weights", "parameters", f"GMAC {width}x{height}", "s per image"]
    rows = [[*header, *conventions], ["rainy input", "", "", "", "", *rainy]]
    for scores, derain in zip(results, derainers, strict=True):
        network = derain.network
        cells = (
            f"{scores.mean(c, 'psnr'):.2f} / {scores.mean(c, 'ssim'):.4f}" for c in conventions
        )
        rows.append(
            [
                type(network).__name__,
                str(derain.weights.path if derain.weights else ""),
                f"{count_parameters(network):,}",
                f"{count_macs(network, height, width) / 1e9:.1f}",
                f"{median(scores.seconds):.2f}",
                *cells,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    ensemble = ", ensemble" if derainers[0].ensemble else ""
    head = f"{title(data, first.pairs, name)}{ensemble}: PSNR / SSIM"
    return "\n".join([head, "", lines[0], rule, *lines[1:]])


def published_rows(
    data: Folders | Synthetic, scores: Scores, name: str = ""
) -> tuple[Published, ...]:
    """Published results on the same pairs; none if only a part of them was scored.

    Args:
        data: the dataset.
        scores: of the test set `name`, or of all test sets of the dataset.
        name: of the test set.
    """
    facts = facts_of(data)
    if facts is None:
        return ()
    if name in facts.sets:
        facts = facts.sets[name]
    elif facts.sets:
        parts = [published_rows(data, part, each) for each, part in scores.sets.items()]
        return _average(parts) if scores.sets.keys() == facts.sets.keys() else ()
    return facts.published if facts.test_pairs[0] == scores.pairs else ()


def _average(parts: Sequence[tuple[Published, ...]]) -> tuple[Published, ...]:
    """The averages of the methods that are published, in the same order, for all test sets."""
    if len({tuple((row.method, row.convention) for row in rows) for rows in parts}) != 1:
        return ()
    return tuple(
        rows[0]._replace(
            psnr=round(fmean(row.psnr for row in rows), 2),
            ssim=round(fmean(row.ssim for row in rows), 3),
        )
        for rows in zip(*parts, strict=True)
    )


def title(data: Folders | Synthetic, pairs: int, name: str = "") -> str:
    """Title of a table: dataset, release, test set and number of pairs."""
    if isinstance(data, Folders):
        facts = facts_of(data)
        words = [data.dataset, facts.release if facts else "", name, f"{pairs} pairs"]
        return ", ".join(filter(None, words))
    return f"synthetic, {data.heaviness} rain, {pairs} pairs"
