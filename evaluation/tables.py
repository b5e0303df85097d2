"""The table of scores of one network, with published results."""

from collections.abc import Sequence
from statistics import fmean

from config import facts_of
from config.reference import Published
from config.schema import Folders, Synthetic
from evaluation.scores import Scores


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
        lines.append(f"{label:<{first}}" + "".join(cells).replace("nan", "  -"))
    if published:
        lines.append("published, each in its own convention:")
    for row in published:
        cell = f"{row.psnr:>10.2f}{row.ssim:>8g}"
        cells = [cell if c == row.convention else " " * 18 for c in scores.conventions]
        if row.convention not in scores.conventions:
            cells = [f"{cell.lstrip()} in {row.convention}"]
        lines.append((f"{row.method:<{first}}" + "".join(cells)).rstrip())
    return "\n".join(lines)


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
