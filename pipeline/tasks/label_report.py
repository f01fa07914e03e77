"""The page of a labelled data set, by itself; LabelAll ends with it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.label_report.output import make_page, page_file, print_place, report_spec
from pipeline.tasks.derived import Labels
from pipeline.tasks.publish import PublishStage

if TYPE_CHECKING:
    from pipeline.storage.fingerprint import StageSpec


class LabelReport(PublishStage):
    """One HTML page of the labels: `luigi --module pipeline LabelReport --dataset NAME`. It labels what is missing."""

    last = Labels

    def prepare(self) -> None:
        """Find out which page belongs to the labels."""
        self.page = report_spec(self.job)

    def requested_stage(self) -> StageSpec:
        """The page."""
        return self.page

    def complete(self) -> bool:
        """Whether the labels and their page are there, and `current` names them."""
        store = self.job.store
        return (
            store.current(self.page.name) == self.page.fingerprint
            and page_file(store, self.page).is_file()
            and super().complete()
        )

    def print_result(self) -> None:
        """Make the page, and say where it lies."""
        print_place(make_page(self.job, self.page))
