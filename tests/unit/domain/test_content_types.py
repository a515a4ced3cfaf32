"""What may be uploaded for which purpose, by its told type or its name."""

import pytest

from domain.content_types import Purpose, refuse_foreign
from domain.errors import UnsupportedMedia


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("application/vnd.apache.parquet", "rows.parquet"),
        ("application/octet-stream", "rows.parquet"),
        ("application/octet-stream", "rows.jsonl"),
        ("text/csv; charset=utf-8", "rows"),
        ("application/zip", "a.zip"),
    ],
)
def test_every_form_of_a_data_set_may_be_sent_for_a_fine_tune(told: str, name: str) -> None:
    refuse_foreign(Purpose.FINE_TUNE, told, name, param="file")


@pytest.mark.parametrize(
    ("told", "name"), [("application/pdf", "a"), ("", "a.tar.gz"), ("image/png", "a.png")]
)
def test_what_no_fine_tune_reads_is_refused_with_what_it_takes(told: str, name: str) -> None:
    with pytest.raises(UnsupportedMedia, match="application/zip"):
        refuse_foreign(Purpose.FINE_TUNE, told, name, param="file")
    refuse_foreign(Purpose.USER_DATA, told, name, param="file")
