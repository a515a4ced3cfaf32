"""The page of what was measured is made of the numbers that lie beside it."""

from benchmarks.kernels import tables


def test_the_page_of_the_kernels_is_what_its_tables_say() -> None:
    assert tables.PAGE.read_text() == tables.page(tables.RESULTS), (
        "run `python -m benchmarks.kernels.tables` and `python -m benchmarks.kernels.plot`"
    )
