"""What an API server checks of a custom resource: its structural schema and its CEL rules.

A small reading of "Extend the Kubernetes API with CustomResourceDefinitions", enough for our CRD:
``complaints`` gives a line for each thing that ``kubectl apply`` (strict about unknown fields)
would be refused for. test_crd.py holds it and a real API server to the same table.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import cel

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
}


def complaints(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Say everything that is wrong with a value."""
    if schema.get("x-kubernetes-int-or-string"):
        good = isinstance(value, int | str) and not isinstance(value, bool)
    else:
        wanted = _TYPES[schema["type"]]  # None, in a list, is of no type
        good = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
    if not good:
        yield f"{path}: {value!r}: not of the type"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r}: not among the values"
    match value:
        case str():
            yield from _text(value, schema, path)
        case list():
            yield from _list(value, schema, path)
        case dict():
            yield from _object(value, schema, path)
        case _:
            pass
    for rule in schema.get("x-kubernetes-validations", ()):
        if not _holds(rule["rule"], value):
            yield f"{path}: {rule['message']}"


def _text(value: str, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    # Go's $ is the end of the text; Python's would let a line's end pass.
    if "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
        yield f"{path}: {value!r}: does not match {schema['pattern']}"
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{path}: {value!r}: too long"


def _list(value: list[Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{path}: {len(value)} items"
    if schema.get("x-kubernetes-list-type") == "set":
        shown = [json.dumps(one, default=str) for one in value]
        if len(set(shown)) < len(shown):
            yield f"{path}: a duplicate"
    for index, one in enumerate(value):
        yield from complaints(one, schema["items"], f"{path}[{index}]")


def _object(value: dict[Any, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    value = _without_nulls(value)
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}: absent"
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{path}: too many properties"
    for name, inner in value.items():
        if name in properties:
            yield from complaints(inner, properties[name], f"{path}.{name}")
        elif "additionalProperties" in schema:
            yield from complaints(inner, schema["additionalProperties"], f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: unknown field"


def _holds(rule: str, value: Any) -> bool:
    """Evaluate a rule; one that fails to evaluate does not hold, as for the API server.

    What Kubernetes adds to CEL is written as methods (``text.find(...)``), and so it is here.
    """
    context = cel.Context({"self": _without_nulls(value)})
    context.add_function("find", lambda text, what: (re.search(what, text) or [""])[0])
    context.add_function("lastIndexOf", lambda text, what: text.rfind(what))
    context.add_function("substring", lambda text, begin, end: text[begin:end])
    try:
        return _compiled(rule).execute(context) is True
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError):
        return False


@functools.cache
def _compiled(rule: str) -> Any:
    return cel.compile(rule)


def _without_nulls(value: Any) -> Any:
    """Leave out members that are null: an API server drops them, or takes them for absent."""
    if isinstance(value, dict):
        return {str(k): _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value
