"""The deployment in a Kubernetes cluster: what is made there, and how it is kept so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]
"""A Kubernetes object, as its JSON."""
