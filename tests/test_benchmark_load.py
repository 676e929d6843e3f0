"""The table of the load test on its page is that of the results."""

import importlib
import json
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
load = importlib.import_module("load")


def test_the_page_has_the_table_that_the_results_give():
    page = (ROOT / "docs" / "performance.md").read_text()
    results = json.loads((load.RESULTS / "load.json").read_text())["results"]
    assert load.make_table(results) in page
