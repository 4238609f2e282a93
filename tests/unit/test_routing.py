"""Routing keys: made, parsed, and filtered as RabbitMQ's topic exchange does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbus.bus.routing import RoutingFilter, RoutingKey, matches

KEY = RoutingKey("info", "nova", "p1", "instance.create.end")
WORDS = st.text("ab", min_size=1, max_size=2)


def test_a_routing_key_is_made_and_parsed() -> None:
    assert str(KEY) == "info.nova.p1.instance.create.end"
    assert RoutingKey.parse(str(KEY)) == KEY


@pytest.mark.parametrize("text", ["", "info", "info.nova", "x.y.z.", "...."])
def test_any_key_of_another_publisher_is_parsed(text: str) -> None:
    key = RoutingKey.parse(text)
    assert key.priority == text.partition(".")[0]


def test_a_long_key_is_cut_at_the_end_of_a_character() -> None:
    text = str(RoutingKey("info", "nova", "-", "é" * 300))
    assert len(text.encode()) in {254, 255}
    assert text.endswith("é")


@pytest.mark.parametrize(
    ("pattern", "event_type", "is_match"),
    [
        ("#", "a.b.c", True),
        ("instance.#", "instance.create.end", True),
        ("instance.#", "instance", True),
        ("instance.*", "instance.create.end", False),
        ("*.create.*", "instance.create.end", True),
        ("#.end", "instance.create.end", True),
        ("#.create.#", "a.create", True),
        ("volume.#", "instance.create", False),
        ("a.#.b.#", "a.x.b", True),
        ("", "a", False),
    ],
)
def test_patterns_match_as_a_topic_exchange_does(
    pattern: str, event_type: str, is_match: bool
) -> None:
    assert matches(pattern, event_type) is is_match


def test_an_empty_filter_is_one_binding_and_lets_all_pass() -> None:
    assert RoutingFilter().binding_keys() == ("#",)
    assert RoutingFilter().passes(KEY)


def test_a_filter_binds_each_combination() -> None:
    routing_filter = RoutingFilter(("nova", "glance"), ("instance.#",), (), ("info",))
    assert routing_filter.binding_keys() == ("info.nova.*.instance.#", "info.glance.*.instance.#")


@given(
    st.builds(
        RoutingFilter,
        st.lists(WORDS, max_size=2).map(tuple),
        st.lists(st.sampled_from(["a.#", "*.b", "#"]), max_size=2).map(tuple),
        st.lists(WORDS, max_size=2).map(tuple),
        st.lists(WORDS, max_size=2).map(tuple),
    ),
    st.builds(
        RoutingKey, WORDS, WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=3).map(".".join)
    ),
)
def test_a_filter_passes_exactly_what_its_bindings_route(
    routing_filter: RoutingFilter, key: RoutingKey
) -> None:
    is_routed = any(matches(binding, str(key)) for binding in routing_filter.binding_keys())
    assert routing_filter.passes(key) == is_routed
