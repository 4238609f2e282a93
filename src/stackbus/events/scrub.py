"""Mask the secrets of a notification. Pure: bytes in, bytes and the masked paths out.

The relay scrubs each delivery before it publishes it; the recorder scrubs bodies that did not pass
the relay. There are two steps. A check of the raw bytes clears most bodies, which stay untouched;
the others are decoded and walked. The check must never clear a body that the walk would change:
both use the same lists, and a test compares them.

There are two kinds of secrets. The whole value under a *sensitive name* becomes ``***``. In any
other string, the part that matches a *secret pattern* becomes ``***``. Both apply at any depth, and
in JSON inside strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stackbus.errors import Unreadable
from stackbus.events.depth import CUT, MAX_DEPTH, cut_deep, may_be_too_deep
from stackbus.services import SERVICES

MASK = "***"

MAX_TEXT = 1024 * 1024
"""Characters of a text that are searched. A longer text is masked whole unless the check of its
bytes clears it: services send a megabyte in no text, and a search copies it once per pattern."""

MAX_EXTRA_TEXT = 16 * 1024
"""Characters that a pattern from the settings searches, for it need not run in linear time."""

_MAX_DIGITS = 4000  # Python refuses to read an integer of more than 4300.
_MAX_PATH = 1000  # Longer paths are shortened: each member copies the path of its parent.

SENSITIVE_NAMES = (
    "passw",  # password, passwd, admin_password, ipmi_password, ...
    "passphrase",
    "passcode",
    "adminpass",
    "secret",
    "token",
    "privatekey",
    "sharedkey",  # pre_shared_key
    "psk",
    "userdata",
    "credential",
    "cookie",
    "apikey",
    "accesskey",
    "authkey",  # of a volume's transfer
    "encryptionkey",
    "signingkey",
    "sessionkey",
    "authorization",
    "injectedfile",
    "personality",  # the older name of injected files
)
"""A name is sensitive if it contains one of these, whatever its case and separators..."""

HARMLESS_SUFFIXES = (
    "id",
    "ids",
    "uuid",
    "ref",
    "refs",
    "name",
    "names",
    "type",
    "at",  # password_expires_at
    "expires",
    "expiry",
    "expiration",
    "ttl",
    "length",
    "count",
    "bytes",  # injected_file_content_bytes, a quota
    "quota",
    "version",
    "algorithm",
    "fingerprint",
    "status",
    "infos",
)
"""...unless it ends with one of these: then its value describes a secret and is none."""

SECRET_PATTERNS = (
    r"gAAAA[A-Za-z0-9_-]{40,}(?:={1,2}|(?:%3[Dd]){1,2})?",  # Fernet token
    (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"  # PEM, cut short too
        r"(?:.*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|.*)"
    ),
    r"(?<=://)(?P<user>[^\s/?#:@\"'\\]*:)[^\s/?#\"'\\]+(?=@)",  # scheme://user:password@host
    (
        r"(?P<query>[?&;][\w.%-]*(?i:passw(?:or)?d|passphrase|token|secret|api_?key"
        r"|access_?key|temp_url_sig|x-amz-signature)=)[^&;\s#\"'\\]+"  # ...?password=...
    ),
)
"""Text that matches one of these is secret under any name. The named groups are not masked.

Each runs in linear time: a part that repeats excludes the character at which a match begins.
"""

_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{6,}+(?P<parts>(?:\.[A-Za-z0-9_-]*+){2,4})?")
"""JWS has three parts, JWE five. A first part alone matches too, and is kept: a later ``eyJ`` in it
would have the same end, and to search from each of them takes quadratic time."""

_PATTERN_MARKS = (b"gaaaa", b"eyj", b"tempurlsig", b"xamzsignature")
_URL_WITH_PASSWORD = re.compile(rb"://[^/?#:@\"']*:[^/?#@\"']*@")
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]|\\/")
"""An escape that no serialiser needs, and that could hide a name or a pattern from the check."""
_LOWER_CASE = bytes(range(256)).lower()
_SEPARATORS = b"_-. "
_DROP_SEPARATORS = str.maketrans("", "", _SEPARATORS.decode())

_SECRET_FIELDS = tuple((prefix, field) for service in SERVICES for prefix, field in service.secrets)

_ALL_FIELDS = frozenset(field for _, field in _SECRET_FIELDS)
_NAME = re.compile(r"""["'](?P<name>[\w.\- ]{1,100})\\*+["']\s*+:\s*+""")
_VALUE = re.compile(
    r"""(?P<open>[bu]?(?P<end>\\*["'])).+?(?P<close>(?<!\\)(?P=end)|\Z)"""
    r"""|(?!null|true|false|None|True|False)[-+.\w]+""",
    re.DOTALL,
)
"""A name and its value in text that resembles JSON or Python, its quotes escaped any number of
times. A truncated value extends to the end of the text."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A body without secrets, and the paths at which a value was masked."""

    body: bytes
    paths: tuple[str, ...] = ()


class Scrubber:
    """The compiled lists of names and patterns."""

    def __init__(self, names: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        """Compile the lists, extended by ``names`` and ``patterns`` from the settings.

        Raises re.error for a pattern that is not a regular expression.
        """
        extra_names = tuple(name for name in map(_normalise_name, names) if name)
        self._names = SENSITIVE_NAMES + extra_names
        self._marks = tuple(name.encode() for name in self._names) + _PATTERN_MARKS
        # Each extra pattern is compiled alone: two may use the same (?P<name>).
        self._extra_patterns = [re.compile(pattern) for pattern in patterns]
        self._patterns = [re.compile("|".join(SECRET_PATTERNS), re.DOTALL), *self._extra_patterns]
        suffixes = "|".join(HARMLESS_SUFFIXES)
        self._harmless_name = re.compile(rf"(?:{suffixes})\Z")
        # The rest of a name after a sensitive word, if its value cannot be a secret. An empty
        # string is two quotes like the one that ended the name: one with more escapes begins a
        # value.
        self._harmless_rest = re.compile(
            rf"[a-z0-9]{{0,100}}?(?:(?:{suffixes})\\*\":"
            rf"|(?P<quote>\\*\"):(?:null|true|false|(?P=quote)(?P=quote)|\[\]|{{}})[,}}\]])".encode()
        )

    def scrub(self, body: bytes, event_type: str) -> Scrubbed:
        """Mask the secrets of ``body``, a JSON text.

        A body without secrets is returned as the same object. Raises Unreadable for a body that
        needs the walk and is not JSON. Of a key twice in one object, the last value is kept.
        """
        fields = frozenset(
            field for prefix, field in _SECRET_FIELDS if event_type.startswith(prefix)
        )
        if not fields and self.is_clear(body):
            return Scrubbed(body)
        return self._walk(body, fields)

    def mask_secrets(self, data: bytes) -> bytes:
        """Mask the secrets that can be found in ``data``, which may be truncated or not JSON.

        JSON is walked as in ``scrub``. In other data, values after a sensitive name and matches of
        a secret pattern are masked, and every other byte stays as it is.
        """
        try:
            return self._walk(data, _ALL_FIELDS).body
        except Unreadable:
            text = self._mask_named_values(data.decode("latin-1"))
            return self.mask_patterns(text).encode("latin-1", "replace")

    def is_clear(self, body: bytes) -> bool:
        """Return whether the bytes of ``body`` rule a secret out; False if in doubt."""
        if may_be_too_deep(body):
            return False
        compact = body.translate(_LOWER_CASE, _SEPARATORS)
        for mark in self._marks:
            start = compact.find(mark)
            while start >= 0:
                end = start + len(mark)
                if self._harmless_rest.match(compact, end) is None:
                    return False
                start = compact.find(mark, end)
        if _ESCAPED_ASCII.search(body) or _URL_WITH_PASSWORD.search(compact):
            return False
        if not self._extra_patterns:
            return True
        if len(body) > MAX_EXTRA_TEXT:
            return False
        text = body.decode("utf-8", "replace")
        return not any(pattern.search(text) for pattern in self._extra_patterns)

    def is_sensitive(self, name: str) -> bool:
        """Return whether the value under ``name`` is a secret."""
        normal_name = _normalise_name(name)
        return any(word in normal_name for word in self._names) and not (
            self._harmless_name.search(normal_name)
        )

    def mask_patterns(self, text: str) -> str:
        """Return ``text`` with every match of a secret pattern masked."""
        if self._extra_patterns and len(text) > MAX_EXTRA_TEXT:
            return MASK
        text = _JWT.sub(_mask_jwt, text)
        for pattern in self._patterns:
            text = pattern.sub(_mask_match, text)
        return text

    def is_clear_text(self, text: str) -> bool:
        """Return whether a decoded text is cleared by the check of bytes."""
        return self.is_clear(text.encode("utf-8", "surrogatepass"))

    def _walk(self, body: bytes, fields: frozenset[str]) -> Scrubbed:
        try:
            text = body.decode(json.detect_encoding(body), "surrogatepass")
            tree = _decode(text, MAX_DEPTH)
        except ValueError as error:
            raise Unreadable(f"cannot be searched for secrets: {type(error).__name__}") from error
        walk = _Walk(self, fields)
        tree = walk.mask_value(tree, "", 0)
        if not walk.paths:
            return Scrubbed(body)
        return Scrubbed(json.dumps(tree).encode(), tuple(walk.paths))

    def _mask_named_values(self, text: str) -> str:
        """Mask the values after sensitive names in a text that is not JSON."""
        parts, position = [], 0
        while name := _NAME.search(text, position):
            parts.append(text[position : name.end()])
            position = name.end()
            if name["name"] in _ALL_FIELDS or self.is_sensitive(name["name"]):
                value = _VALUE.match(text, position)
                if value is not None:
                    parts.append((value["open"] or "") + MASK + (value["close"] or ""))
                    position = value.end()
        return "".join(parts) + text[position:]


class _Walk:
    """A walk through one decoded body, which collects the paths of masked values."""

    def __init__(self, scrubber: Scrubber, fields: frozenset[str]) -> None:
        self._scrubber = scrubber
        self._fields = fields
        self.paths: list[str] = []

    def mask_value(self, value: object, path: str, depth: int) -> object:
        if isinstance(value, str):
            return self._mask_text(value, path, depth)
        if isinstance(value, dict):
            return self._mask_object(value, path, depth)
        if isinstance(value, list):
            return [
                self.mask_value(item, _shorten(f"{path}[{index}]"), depth + 1)
                for index, item in enumerate(value)
            ]
        if value is _UNREAD:
            self.paths.append(path)
            return MASK
        return value

    def _mask_object(self, members: dict[str, object], path: str, depth: int) -> dict[str, object]:
        pair_name = _read_pair_name(members)
        walked: dict[str, object] = {}
        if isinstance(members, _Doubled):
            self.paths.append(path or "oslo.message")
        for name, value in members.items():
            shown_name = self._scrubber.mask_patterns(name)
            # Paths start at the notification, not at its envelope.
            member_path = path if name == "oslo.message" and not path else _join(path, shown_name)
            if shown_name != name:
                self.paths.append(member_path)
            is_secret = self._is_secret_name(name) or (
                name == "value" and pair_name is not None and self._is_secret_name(pair_name)
            )
            if is_secret and _may_be_secret(value):
                self.paths.append(member_path)
                walked[shown_name] = MASK
            else:
                walked[shown_name] = self.mask_value(value, member_path, depth + 1)
        return walked

    def _mask_text(self, text: str, path: str, depth: int) -> str:
        is_message = not path and depth == 1  # the notification in its envelope
        if len(text) > MAX_TEXT and not is_message:
            return text if self._scrubber.is_clear_text(text) else self._mask(path)
        if text.lstrip()[:1] in ("{", "["):
            limit = MAX_DEPTH - depth
            try:
                tree = _decode(text, limit)
            except ValueError:
                pass
            else:
                if not is_message and not _is_searchable(tree):
                    return text if self._scrubber.is_clear_text(text) else self._mask(path)
                count_before = len(self.paths)
                tree = self.mask_value(tree, path, depth)
                return json.dumps(tree) if len(self.paths) > count_before else text
        masked = self._scrubber.mask_patterns(text)
        if masked != text:
            self.paths.append(path)
        return masked

    def _mask(self, path: str) -> str:
        self.paths.append(path)
        return MASK

    def _is_secret_name(self, name: str) -> bool:
        return name in self._fields or self._scrubber.is_sensitive(name)


class _Doubled(dict[str, object]):
    """An object that had a key twice. Readers differ in which value they take."""


_UNREAD = object()
"""In place of a number that is too long, or of a subtree that is nested too deep."""


def _decode(text: str, limit: int) -> object:
    """Decode a JSON text, its subtrees below ``limit`` levels replaced by _UNREAD."""
    return json.loads(
        cut_deep(text, limit),
        object_pairs_hook=_build_object,
        parse_int=_read_integer,
        parse_float=_read_float,
    )


def _build_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _Doubled(members)


def _read_integer(digits: str) -> object:
    return int(digits) if len(digits) <= _MAX_DIGITS else _UNREAD


def _read_float(digits: str) -> object:
    return _UNREAD if digits == CUT else float(digits)


def _is_searchable(tree: object) -> bool:
    """Return whether every value of the JSON in a text was read."""
    values = [tree]
    while values:
        value = values.pop()
        if value is _UNREAD or isinstance(value, _Doubled):
            return False
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
    return True


def _read_pair_name(members: Mapping[str, object]) -> str | None:
    """Read the name of a pair written as an object: ``{"key": <name>, "value": ...}``.

    ``name`` may stand in place of ``key``. None if it is not such a pair.
    """
    if "value" not in members:
        return None
    for word in ("key", "name"):
        name = members.get(word)
        if isinstance(name, str):
            return name
    return None


def _may_be_secret(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return False
    if isinstance(value, str):
        # The check takes a string of separators for empty: it is not a secret.
        return bool(value.translate(_DROP_SEPARATORS).strip("*"))
    return bool(value) or isinstance(value, int | float)


def _mask_match(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return (groups.get("user") or groups.get("query") or "") + MASK


def _mask_jwt(match: re.Match[str]) -> str:
    return match[0] if match["parts"] is None else MASK


def _normalise_name(name: str) -> str:
    return name.lower().translate(_DROP_SEPARATORS)


def _join(path: str, name: str) -> str:
    return _shorten(f"{path}.{name}" if path else name)


def _shorten(path: str) -> str:
    return path if len(path) <= _MAX_PATH else path[:_MAX_PATH] + "..."
