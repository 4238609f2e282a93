"""The lines that client certificates need are the same wherever a reader finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackbus.bus.rabbitmq_conf import RABBITMQ_CONF

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path", ["docs/how-to/own-broker.md", "deploy/overlays/with-rabbitmq/rabbitmq.yaml"]
)
def test_a_page_or_manifest_has_the_lines_of_the_product(path: str) -> None:
    lines = [line.strip() for line in (ROOT / path).read_text("utf-8").splitlines()]
    assert [line for line in RABBITMQ_CONF.splitlines() if line not in lines] == []
