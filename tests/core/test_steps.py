"""Sources of documents, as clients get them."""

from __future__ import annotations

import pytest
from mlflow.entities import Document

from oneturn.core.steps import source
from oneturn.responses.reply import source as read_source

DANGEROUS = [
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    " \x01java\nscript:alert(1)",
    "data:text/html,x",
    "file:///x",
]
SAFE = ["https://example.com/a:b", "HTTP://example.com", "handbook/returns.md", "/a?b=c:d", "#1:2", "orders/M-1045:2"]


@pytest.mark.parametrize("url", DANGEROUS)
def test_links_that_run_code_reach_no_client(url: str):
    assert source(Document("text", {"doc_uri": url, "title": "T"}, "1"))["url"] == ""
    assert source(Document("text", {}, url))["url"] == ""
    assert read_source({"title": "T", "url": url}).url == ""


@pytest.mark.parametrize("url", SAFE)
def test_other_links_are_unchanged(url: str):
    assert source(Document("text", {"doc_uri": url}, "1"))["url"] == url
    assert read_source({"title": "T", "url": url}).url == url
