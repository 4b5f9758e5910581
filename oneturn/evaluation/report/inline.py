"""The report inside a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from oneturn.evaluation.report.html import html
from oneturn.evaluation.result import Evaluation


@dataclass(frozen=True)
class InlineReport:
    """A report that a notebook shows as the last value of a cell; see :func:`show_report`.

    Attributes:
        page: the text of the HTML page.
        height: the height of the frame, in pixels.
    """

    page: str
    height: int

    def _repr_html_(self) -> str:
        """Return a frame of its own, so that neither the page's style nor its script reaches the notebook."""
        frame = "width:100%;border:1px solid #8884;border-radius:6px"
        return (
            f'<iframe srcdoc="{escape(self.page)}" sandbox="allow-scripts" title="Report" height="{self.height}" '
            f'style="{frame}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"InlineReport({len(self.page):,} characters; write_report writes it to a file)"


def show_report(
    evaluation: Evaluation,
    baseline: Evaluation | None = None,
    *,
    title: str = "Evaluation",
    names: tuple[str, str] = ("baseline", "this evaluation"),
    category: str = "category",
    pass_score: float = 1.0,
    height: int = 800,
) -> InlineReport:
    """Return the page that :func:`write_report` writes, for a notebook: make it the last value of a cell.

    Args:
        evaluation: the evaluation to report.
        baseline: an evaluation of the same examples, to compare with.
        title: the page's title.
        names: the names of the baseline and the evaluation.
        category: the label to group rows by, if they have it.
        pass_score: the minimum score, 0 to 1, of a passed row.
        height: the height of the frame, in pixels.

    Raises:
        DataError: there are no rows, they aren't rows of an evaluation, or the baseline has other examples.
    """
    page = html(evaluation, baseline, title=title, names=names, category=category, pass_score=pass_score)
    return InlineReport(page, height)
