"""Kubernetes' API, emulated: kmock's discovery and server, with the storage rules of the real one.

kmock alone merges JSON and forgets versions. Here are, as "Kubernetes API Concepts" has them:
resource versions, conflicts, generations, the status subresource, finalizers, merge and JSON
patches, server-side apply with its owners of fields, label and field selectors, namespaces that
must exist, and watches that begin at a version, end, or say 410. What is not here: admission,
schemas (test_crd.py holds those), other controllers, RBAC (the calls are written down instead).
``tests/contract/test_kubernetes.py`` holds this and a real API server to the same behaviour.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp.web
import attrs
import kmock
import yaml

RESOURCES = {
    # plural in group/version: kind, namespaced, has a status subresource
    "v1/namespaces": ("Namespace", False, True),
    "v1/nodes": ("Node", False, True),
    "v1/secrets": ("Secret", True, False),
    "v1/configmaps": ("ConfigMap", True, False),
    "v1/services": ("Service", True, True),
    "v1/events": ("Event", True, False),
    "apiextensions.k8s.io/v1/customresourcedefinitions": ("CustomResourceDefinition", False, True),
    "lcm.mirantis.com/v1alpha1/openstackdeployments": ("OpenStackDeployment", True, True),
    "kopf.dev/v1/clusterkopfpeerings": ("ClusterKopfPeering", False, False),
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")
_LIST_KEYS = {"conditions": "type", "topics": "name", "ports": "port"}
"""Lists of which each element has an owner (x-kubernetes-list-type: map), by their field's name."""

Key = tuple[str, str, str]
"""Plural with group and version, namespace ('' for none), name."""


@dataclass(frozen=True)
class Call:
    """One request: what RBAC would look at."""

    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str = ""
    by_operator: bool = False

    @property
    def is_write(self) -> bool:
        return self.verb in ("create", "update", "patch", "delete")


@dataclass(frozen=True)
class Request:
    """What of a request matters to an answer."""

    params: dict[str, str]
    content_type: str
    body: bytes


class Refused(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.code, self.reason, self.message = code, reason, message or reason


@dataclass
class Store:
    """The objects, and what the rules say of each write."""

    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    log: list[tuple[int, str, Key, dict[str, Any]]] = field(default_factory=list)
    applied: dict[tuple[Key, str, str], dict[str, Any]] = field(default_factory=dict)
    version: int = 100
    compacted: int = 0

    def get(self, key: Key) -> dict[str, Any]:
        if key not in self.objects:
            raise Refused(404, "NotFound", f"{key[0].rpartition('/')[2]} {key[2]!r} not found")
        return self.objects[key]

    def create(self, key: Key, body: dict[str, Any]) -> dict[str, Any]:
        if key in self.objects:
            raise Refused(409, "AlreadyExists", f"{key[2]!r} already exists")
        kind, _, has_status = RESOURCES[key[0]]
        if key[1] and ("v1/namespaces", "", key[1]) not in self.objects:
            raise Refused(404, "NotFound", f"namespaces {key[1]!r} not found")
        new = copy.deepcopy(body)
        if has_status and key[0].startswith("lcm."):
            new.pop("status", None)
        metadata = new.setdefault("metadata", {})
        metadata.update(
            name=key[2],
            uid=str(uuid.uuid4()),
            creationTimestamp=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            generation=1,
        )
        if key[1]:
            metadata["namespace"] = key[1]
        new["apiVersion"], new["kind"] = key[0].rpartition("/")[0], kind
        self._defaults(key, new)
        return self._commit("ADDED", key, new)

    def write(self, key: Key, new: dict[str, Any], subresource: str) -> dict[str, Any]:
        old = self.get(key)
        wanted = new.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, old["metadata"]["resourceVersion"]):
            raise Refused(409, "Conflict", "the object has been modified; apply your changes anew")
        new = copy.deepcopy(new)
        if subresource == "status":
            new = {**copy.deepcopy(old), "status": new.get("status", {})}
        elif RESOURCES[key[0]][2]:
            new.pop("status", None)
            if "status" in old:
                new["status"] = copy.deepcopy(old["status"])
        for name in (
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
        ):
            if name in old["metadata"]:
                new["metadata"][name] = old["metadata"][name]
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
        self._defaults(key, new)
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            return self._remove(key)
        return self._commit("MODIFIED", key, new)

    def delete(self, key: Key) -> dict[str, Any]:
        old = self.get(key)
        if not old["metadata"].get("finalizers"):
            return self._remove(key)
        if old["metadata"].get("deletionTimestamp"):
            return old
        new = copy.deepcopy(old)
        new["metadata"]["deletionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._commit("MODIFIED", key, new)

    def apply(
        self, key: Key, body: dict[str, Any], manager: str, subresource: str, *, force: bool
    ) -> dict[str, Any]:
        wanted = {name: value for name, value in body.items() if name not in ("apiVersion", "kind")}
        wanted["metadata"] = {
            name: value
            for name, value in wanted.get("metadata", {}).items()
            if name in ("labels", "annotations", "finalizers")
        }
        mark = (key, manager, subresource)
        mine = set(_leaves(wanted))
        if key not in self.objects:
            if subresource:
                raise Refused(404, "NotFound", f"{key[2]!r} not found")
            new = self.create(key, body)
        else:
            before = self.applied.get(mark, {})
            others: set[tuple[str, ...]] = set()
            for (which, who, _), value in self.applied.items():
                if which == key and who != manager:
                    others |= set(_leaves(value))
            old = self.objects[key]
            clashes = {path for path in mine & others if _at(old, path) != _at(wanted, path)}
            if clashes and not force:
                raise Refused(409, "Conflict", f"conflict with other managers: {sorted(clashes)}")
            new = copy.deepcopy(old)
            for path in set(_leaves(before)) - mine - others:
                _remove_at(new, path, mine | others)
            _merge(new, wanted)
            new["metadata"].pop("resourceVersion", None)
            new = self.write(key, new, subresource)
        self.applied[mark] = copy.deepcopy(wanted)
        self._owned(key, manager, subresource, mine)
        return self.objects.get(key, new)

    def _owned(self, key: Key, manager: str, subresource: str, paths: set[tuple[str, ...]]) -> None:
        """Write down who applied what, in place: it makes no version of its own."""
        fields: dict[str, Any] = {}
        for path in sorted(paths):
            here = fields
            for step in path:
                here = here.setdefault(f"f:{step}", {})
        entry = {
            "manager": manager,
            "operation": "Apply",
            "apiVersion": key[0].rpartition("/")[0],
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
            **({"subresource": subresource} if subresource else {}),
        }
        kept = self.objects[key]["metadata"].setdefault("managedFields", [])
        kept[:] = [
            one
            for one in kept
            if (one["manager"], one.get("subresource", "")) != (manager, subresource)
        ]
        kept.append(entry)

    def _defaults(self, key: Key, new: dict[str, Any]) -> None:
        if key[0] == "v1/services":
            spec = new.setdefault("spec", {})
            spec.setdefault("type", "ClusterIP")
            spec.setdefault("clusterIP", "10.96.0.17")
            new.setdefault("status", {"loadBalancer": {}})
            for number, port in enumerate(spec.get("ports", ())):
                port.setdefault("protocol", "TCP")
                if spec["type"] != "ClusterIP":
                    port.setdefault("nodePort", 30672 + number)
                else:
                    port.pop("nodePort", None)
        if key[0] == "v1/secrets":
            new.setdefault("type", "Opaque")

    def _remove(self, key: Key) -> dict[str, Any]:
        old = self.objects.pop(key)
        self.applied = {mark: one for mark, one in self.applied.items() if mark[0] != key}
        self.version += 1
        self.log.append((self.version, "DELETED", key, old))
        return old

    def _commit(self, event: str, key: Key, new: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = new
        self.log.append((self.version, event, key, copy.deepcopy(new)))
        return new


@attrs.define(kw_only=True)
class Emulator(kmock.KubernetesScaffold):
    """The server. Its hooks are called in the server's thread, before or after a call is done."""

    store: Store = attrs.field(factory=Store, init=False)
    calls: list[Call] = attrs.field(factory=list, init=False)
    before: Callable[[Call], None] = attrs.field(default=lambda _: None, init=False)
    after: Callable[[Call], None] = attrs.field(default=lambda _: None, init=False)
    _cuts: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for name, (kind, namespaced, has_status) in RESOURCES.items():
            self.resources[name] = {
                "kind": kind,
                "namespaced": namespaced,
                "singular": kind.lower(),
                "verbs": VERBS,
                "shortnames": (),
                "categories": (),
                "subresources": ("status",) if has_status else (),
            }

    def cut_watches(self) -> None:
        """End every watch that is open."""
        self._cuts += 1

    def forget_versions(self) -> None:
        """Make every version that was given so far too old to watch from."""
        self.store.compacted = self.store.version + 1
        self.store.version += 1
        self.store.log.clear()

    async def __call__(self, raw_request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        """Answer what is about objects; discovery is kmock's."""
        parsed = _parsed(raw_request.path)
        if parsed is None:
            return await super().__call__(raw_request)
        resource, namespace, name, subresource = parsed
        request = Request(
            dict(raw_request.query),
            raw_request.headers.get("Content-Type", ""),
            await raw_request.read(),
        )
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
            raw_request.method, "get" if name else "list"
        )
        if request.params.get("watch") in ("true", "1"):
            verb = "watch"
        # As the real one: asking for one object by a field selector is asking for that name.
        asked, _, selected = request.params.get("fieldSelector", "").partition("=")
        if asked == "metadata.name":
            name = selected
        by_operator = "Authorization" in raw_request.headers  # tests bring no token
        call = Call(verb, resource, namespace, name, subresource, by_operator)
        self.calls.append(call)
        try:
            self.before(call)
            if verb == "watch":
                return await self._watch(raw_request, request, resource, namespace)
            answer = self._answer(call, request)
            self.after(call)
            return aiohttp.web.json_response(answer, status=201 if verb == "create" else 200)
        except Refused as refused:
            headers = {"Retry-After": "1"} if refused.code == 429 else {}
            return aiohttp.web.json_response(_status(refused), status=refused.code, headers=headers)

    def _answer(self, call: Call, request: Request) -> dict[str, Any]:
        key = (call.resource, call.namespace, call.name)
        store = self.store
        kind = RESOURCES[call.resource][0]
        match call.verb:
            case "list":
                items = [
                    found
                    for key, found in sorted(store.objects.items())
                    if _selected(key, found, call.resource, call.namespace, request.params)
                ]
                return {
                    "kind": f"{kind}List",
                    "apiVersion": call.resource.rpartition("/")[0],
                    "metadata": {"resourceVersion": str(store.version)},
                    "items": items,
                }
            case "get":
                return store.get(key)
            case "create":
                body = json.loads(request.body)
                name = body["metadata"].get("name")
                if not name:
                    name = body["metadata"]["generateName"] + uuid.uuid4().hex[:5]
                return store.create((call.resource, call.namespace, name), body)
            case "update":
                return store.write(key, json.loads(request.body), call.subresource)
            case "delete":
                return store.delete(key)
            case _:
                return self._patched(key, call.subresource, request)

    def _patched(self, key: Key, subresource: str, request: Request) -> dict[str, Any]:
        kind = request.content_type
        if kind == "application/apply-patch+yaml":
            if "fieldManager" not in request.params:
                raise Refused(400, "BadRequest", "fieldManager is required for apply patch")
            force = request.params.get("force") == "true"
            body = yaml.safe_load(request.body)
            if body.get("metadata", {}).get("managedFields"):
                raise Refused(400, "BadRequest", "metadata.managedFields must be nil")
            return self.store.apply(
                key, body, request.params["fieldManager"], subresource, force=force
            )
        old = copy.deepcopy(self.store.get(key))
        patch = json.loads(request.body)
        if kind == "application/json-patch+json":
            new = _json_patched(old, patch)
        elif kind == "application/merge-patch+json":
            new = _merge_patched(old, patch)
            if "resourceVersion" not in patch.get("metadata", {}):
                new["metadata"].pop("resourceVersion")
        else:
            raise Refused(415, "UnsupportedMediaType", kind)
        return self.store.write(key, new, subresource)

    async def _watch(
        self,
        raw_request: aiohttp.web.BaseRequest,
        request: Request,
        resource: str,
        namespace: str,
    ) -> aiohttp.web.StreamResponse:
        store, cuts = self.store, self._cuts
        response = aiohttp.web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(raw_request)

        async def send(event: str, found: dict[str, Any]) -> None:
            await response.write(json.dumps({"type": event, "object": found}).encode() + b"\n")

        version = request.params.get("resourceVersion", "0")
        seen = store.version
        if version in ("", "0"):
            for key, found in sorted(store.objects.items()):
                if _selected(key, found, resource, namespace, request.params):
                    await send("ADDED", found)
        elif int(version) < store.compacted:
            await send("ERROR", _status(Refused(410, "Expired", "too old resource version")))
            return response
        else:
            seen = int(version)
        loop = asyncio.get_running_loop()
        end = loop.time() + float(request.params.get("timeoutSeconds", 300))
        while self._cuts == cuts and loop.time() < end:
            for number, event, key, found in list(store.log):
                if number > seen:
                    seen = number
                    if _selected(key, found, resource, namespace, request.params):
                        await send(event, found)
            await asyncio.sleep(0.02)
        return response


def _parsed(path: str) -> tuple[str, str, str, str] | None:
    """Read a path: resource, namespace, name, subresource; None for discovery."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        version, rest = parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        version, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    if f"{version}/{plural}" not in RESOURCES:
        return None
    return f"{version}/{plural}", namespace, name, subresource


def _selected(
    key: Key, found: dict[str, Any], resource: str, namespace: str, params: dict[str, str]
) -> bool:
    if key[0] != resource or (namespace and key[1] != namespace):
        return False
    labels = found["metadata"].get("labels") or {}
    for part in filter(None, params.get("labelSelector", "").split(",")):
        name, _, value = part.partition("=")
        if labels.get(name) != value:
            return False
    for part in filter(None, params.get("fieldSelector", "").split(",")):
        name, _, value = part.partition("=")
        if {"metadata.name": key[2], "metadata.namespace": key[1]}.get(name) != value:
            return False
    return True


def _status(refused: Refused) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": refused.message,
        "reason": refused.reason,
        "code": refused.code,
    }


def _merge_patched(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = _merge_patched(new.get(name), value)
    return new


def _json_patched(old: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902, of which kopf uses test, add, replace and remove."""
    for operation in operations:
        steps = [
            step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]
        ]
        here = old
        for step in steps[:-1]:
            here = here[int(step)] if isinstance(here, list) else here[step]
        last = steps[-1]
        match operation["op"], here:
            case "test", _:
                present = here.get(last) if isinstance(here, dict) else here[int(last)]
                if present != operation["value"]:
                    raise Refused(422, "Invalid", "the test of a JSON patch failed")
            case "add", list():
                here.insert(len(here) if last == "-" else int(last), operation["value"])
            case "remove", list():
                del here[int(last)]
            case "replace", list():
                here[int(last)] = operation["value"]
            case "remove", _:
                del here[last]
            case _:
                here[last] = operation["value"]
    return old


# Server-side apply: paths of leaves; an element of a keyed list is a step ``=<its key>``.


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list) and path and path[-1] in _LIST_KEYS:
        for element in value:
            yield from _leaves(element, (*path, f"={element[_LIST_KEYS[path[-1]]]}"))
    elif path:
        yield path


def _element(here: Any, path: tuple[str, ...], step: str) -> Any:
    if step.startswith("=") and isinstance(here, list):
        key = _LIST_KEYS[path[-1]]
        return next((one for one in here if str(one.get(key)) == step[1:]), None)
    return here.get(step) if isinstance(here, dict) else None


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for index, step in enumerate(path):
        value = _element(value, path[:index], step)
    return value


def _remove_at(value: Any, path: tuple[str, ...], owned: set[tuple[str, ...]]) -> None:
    """Remove what nobody owns any more: the outermost element of a list, else the leaf."""
    for index, step in enumerate(path):
        prefix = path[: index + 1]
        if step.startswith("=") and not any(one[: index + 1] == prefix for one in owned):
            elements, element = _at(value, path[:index]), _at(value, prefix)
            if element is not None:
                elements.remove(element)
            return
    parent = _at(value, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)


def _merge(old: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        present = old.get(name)
        if isinstance(value, dict) and isinstance(present, dict):
            _merge(present, value)
        elif isinstance(value, list) and isinstance(present, list) and name in _LIST_KEYS:
            key = _LIST_KEYS[name]
            known = {one.get(key): one for one in present}
            for element in value:
                if element[key] in known:
                    _merge(known[element[key]], element)
                else:
                    present.append(copy.deepcopy(element))
        else:
            old[name] = copy.deepcopy(value)


@dataclass
class Running:
    """A running emulator and how tests get at it, from their own thread."""

    emulator: Emulator
    url: str

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for it."""
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "clusters": [{"name": "test", "cluster": {"server": self.url}}],
                    "users": [{"name": "test", "user": {"token": "made-up"}}],
                }
            )
        )
        path.chmod(0o600)
        return path


@contextmanager
def running() -> Iterator[Running]:
    """Run an emulator in a thread of its own."""
    ready: threading.Event = threading.Event()
    found: list[Running] = []
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with Emulator() as emulator, kmock.Server(emulator) as server:
            found.append(Running(emulator, str(server.url).rstrip("/")))
            stop.append(lambda: loop.call_soon_threadsafe(ended.set))
            ready.set()
            await ended.wait()
            emulator.cut_watches()
            await asyncio.sleep(0.1)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield found[0]
    finally:
        stop[0]()
        thread.join(20)
