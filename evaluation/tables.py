"""The table of scores of one network, with published results."""

from config import release_of
from config.reference import Published
from config.schema import Folders, Synthetic
from evaluation.scores import Scores


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
        lines.append(f"{name:<{first}}" + "".join(cells).replace("nan", "  -"))
    if published:
        lines.append("published, each in its own convention:")
    for row in published:
        cell = f"{row.psnr:>10.2f}{row.ssim:>8g}"
        cells = [cell if c == row.convention else " " * 18 for c in scores.conventions]
        if row.convention not in scores.conventions:
            cells = [f"{cell.lstrip()} in {row.convention}"]
        lines.append((f"{row.method:<{first}}" + "".join(cells)).rstrip())
    return "\n".join(lines)


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
