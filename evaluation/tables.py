"""Tables of scores: one network with published results, or a comparison of several networks."""

from collections.abc import Sequence
from statistics import median

from config import release_of
from config.reference import Published
from config.schema import Folders, Synthetic
from evaluation.scores import Scores
from models import Derainer
from utils.runtime import count_macs, count_parameters


def table(scores: Scores, data: Folders | Synthetic, method: str) -> str:
    """Format scores as aligned text, with rows for the rainy input and published results.

    Args:
        scores: scores of the network.
        data: the dataset.
        method: label of the network's row.
    """
    published = published_rows(data, scores.pairs)
    names = ["rainy input", method, *(row.method for row in published)]
    first = max(map(len, names)) + 2
    lines = [
        title(data, scores.pairs),
        "",
        " " * first + "".join(f"{c:>18}" for c in scores.conventions),
        " " * first + "      PSNR    SSIM" * len(scores.conventions),
    ]
    for name, prefix in (("rainy input", "rainy_"), (method, "")):
        cells = [
            f"{scores.mean(c, prefix + 'psnr'):>10.2f}{scores.mean(c, prefix + 'ssim'):>8.4f}"
            for c in scores.conventions
        ]
        lines.append(f"{name:<{first}}" + "".join(cells))
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

    Args:
        results: scores of each network.
        derainers: the networks.
        data: the dataset.
        size: height and width for which multiply-adds are counted.
    """
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
    head = f"{title(data, first.pairs)}{', ensemble' if derainers[0].ensemble else ''}: PSNR / SSIM"
    return "\n".join([head, "", lines[0], rule, *lines[1:]])


def published_rows(data: Folders | Synthetic, pairs: int) -> tuple[Published, ...]:
    """Published results of the same release; none if only a part of its pairs was scored."""
    facts = release_of(data)
    return facts.published if facts is not None and facts.test_pairs == pairs else ()


def title(data: Folders | Synthetic, pairs: int) -> str:
    """Title of a table: dataset, release and number of pairs."""
    if isinstance(data, Folders):
        release = f", {data.release} release" if release_of(data) else ""
        return f"{data.dataset}{release}, {pairs} pairs"
    return f"synthetic, {data.heaviness} rain, {pairs} pairs"
