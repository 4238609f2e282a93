"""Take secrets out of a notification. Pure: bytes in, bytes and the paths of what went out.

Called by ``relay/relay.py`` for each delivery (and by the recorder for what did not come through
the relay); what comes out is published. Two steps: a look at the bytes that clears most bodies,
which then pass untouched; and a walk through the decoded body for the others. The look must never
clear what the walk would change: both read the same lists, and a test holds them to it.

Two kinds of secrets: a value under a *telling name* becomes ``***`` whole; of a value that holds a
*telling shape*, what has that shape becomes ``***``. At any depth, in JSON inside strings too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stackbus.errors import Unreadable
from stackbus.services import SERVICES

MASK = "***"

TELLING_NAMES = (
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
"""A name is telling if it contains one of these, whatever its case and separators."""

HARMLESS_ENDINGS = (
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
"""...unless it ends with one of these: then it speaks about a secret without holding it."""

TELLING_SHAPES = (
    r"gAAAA[A-Za-z0-9_-]{40,}(?:={1,2}|(?:%3[Dd]){1,2})?",  # Fernet token
    r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){2,4}",  # JWT: JWS has three parts, JWE five
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
"""What has one of these shapes is a secret wherever it stands (the groups are kept)."""

_SHAPE_MARKS = (b"gaaaa", b"eyj", b"tempurlsig", b"xamzsignature")
_URL_WITH_PASSWORD = re.compile(rb"://[^/?#:@\"']*:[^/?#@\"']*@")
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]|\\/")
"""An escape that no serialiser needs and that could hide a name or a shape from the look."""
_SQUEEZE = bytes(range(256)).lower()
_SEPARATORS = b"_-. "
_SQUEEZE_NAME = str.maketrans("", "", _SEPARATORS.decode())

_SECRET_FIELDS = tuple((prefix, field) for service in SERVICES for prefix, field in service.secrets)

_ALL_FIELDS = frozenset(field for _, field in _SECRET_FIELDS)
_NAME = re.compile(r"""(?P<quote>\\*["'])(?P<name>[\w.\- ]{1,100})(?P=quote)\s*:\s*""")
_VALUE = re.compile(
    r"""(?P<open>[bu]?(?P<end>\\*["'])).+?(?P<close>(?<!\\)(?P=end)|\Z)"""
    r"""|(?!null|true|false|None|True|False)[-+.\w]+""",
    re.DOTALL,
)
"""A name and its value in what looks like JSON or like Python, with quotes escaped any number of
times; a value that is cut short reaches to the end."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A body that may leave, and the paths at which something was taken out of it."""

    body: bytes
    paths: tuple[str, ...] = ()


class Scrubber:
    """The lists, compiled once; ``scrub`` is the one verb."""

    def __init__(self, names: Iterable[str] = (), shapes: Iterable[str] = ()) -> None:
        """Extend the lists by ``names`` and ``shapes``, as the settings give them.

        Raises re.error for a shape that is no regular expression.
        """
        extra_names = tuple(_squeezed(name) for name in names if _squeezed(name))
        extra_shapes = tuple(shapes)
        self._names = TELLING_NAMES + extra_names
        self._marks = tuple(name.encode() for name in self._names) + _SHAPE_MARKS
        # A repeated (?P<name>) is an error in one pattern, so each extra shape stays its own.
        self._shapes = [re.compile("|".join(TELLING_SHAPES), re.DOTALL)]
        self._extra = [re.compile(shape) for shape in extra_shapes]
        self._shapes += self._extra
        endings = "|".join(HARMLESS_ENDINGS)
        self._harmless_name = re.compile(rf"(?:{endings})\Z")
        # After a telling word: the rest of a name whose value cannot be a secret. An empty text
        # is two quotes like the one that ended the name: one with more escapes begins a value.
        self._harmless_rest = re.compile(
            rf"[a-z0-9]*?(?:(?:{endings})\\*\":"
            rf"|(?P<quote>\\*\"):(?:null|true|false|(?P=quote)(?P=quote)|\[\]|{{}})[,}}\]])".encode()
        )

    def scrub(self, body: bytes, event_type: str) -> Scrubbed:
        """Take the secrets out of ``body``, a JSON text.

        What holds none comes back as the same bytes. Raises Unreadable where the walk is needed
        and the body cannot be walked: then nobody can say what is in it.
        """
        fields = frozenset(
            field for prefix, field in _SECRET_FIELDS if event_type.startswith(prefix)
        )
        if not fields and self.is_clear(body):
            return Scrubbed(body)
        return self._walked(body, fields)

    def without_secrets(self, data: bytes) -> bytes:
        """Mask what can be found of secrets in ``data`` that is no notification, or not whole.

        JSON is walked as ``scrub`` does; in anything else, values that stand after a telling name
        and what has a telling shape are masked. All else stays as it is.
        """
        try:
            return self._walked(data, _ALL_FIELDS).body
        except Unreadable:
            text = self._without_named(data.decode("latin-1"))
            return self.without_shapes(text).encode("latin-1", "replace")

    def is_clear(self, body: bytes) -> bool:
        """Tell by a look at the bytes that no secret can be in ``body``; when unsure, False."""
        squeezed = body.translate(_SQUEEZE, _SEPARATORS)
        for mark in self._marks:
            at = squeezed.find(mark)
            while at >= 0:
                end = at + len(mark)
                rest = self._harmless_rest.match(squeezed, end)
                if rest is None:
                    return False
                at = squeezed.find(mark, end)
        if _ESCAPED_ASCII.search(body) or _URL_WITH_PASSWORD.search(squeezed):
            return False
        if not self._extra:
            return True
        text = body.decode("utf-8", "replace")
        return not any(shape.search(text) for shape in self._extra)

    def is_telling(self, name: str) -> bool:
        """Tell whether a value under ``name`` is a secret."""
        squeezed = _squeezed(name)
        return any(telling in squeezed for telling in self._names) and not (
            self._harmless_name.search(squeezed)
        )

    def without_shapes(self, text: str) -> str:
        """Give ``text`` with all that has a telling shape masked."""
        for shape in self._shapes:
            text = shape.sub(_masked, text)
        return text

    def _walked(self, body: bytes, fields: frozenset[str]) -> Scrubbed:
        try:
            tree = json.loads(body, object_pairs_hook=_unique)
            walk = _Walk(self, fields)
            tree = walk.value(tree, "")
            if not walk.paths:
                return Scrubbed(body)
            return Scrubbed(json.dumps(tree).encode(), tuple(walk.paths))
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"cannot be searched for secrets: {type(error).__name__}") from error

    def _without_named(self, text: str) -> str:
        """Mask what stands after a telling name in a text that is no JSON."""
        parts, done = [], 0
        while name := _NAME.search(text, done):
            parts.append(text[done : name.end()])
            done = name.end()
            if name["name"] in _ALL_FIELDS or self.is_telling(name["name"]):
                value = _VALUE.match(text, done)
                if value is not None:
                    parts.append((value["open"] or "") + MASK + (value["close"] or ""))
                    done = value.end()
        return "".join(parts) + text[done:]


class _Walk:
    """One walk through one decoded body; collects the paths of what it masked."""

    def __init__(self, scrubber: Scrubber, fields: frozenset[str]) -> None:
        self._scrubber = scrubber
        self._fields = fields
        self.paths: list[str] = []

    def value(self, value: object, path: str) -> object:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, dict):
            return self._object(value, path)
        if isinstance(value, list):
            return [self.value(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return value

    def _object(self, members: dict[str, object], path: str) -> dict[str, object]:
        pair = _pair(members)
        walked: dict[str, object] = {}
        for name, value in members.items():
            shown = self._scrubber.without_shapes(name)
            # The envelope is no part of the path: paths start at the notification.
            below = path if name == "oslo.message" and not path else _join(path, shown)
            if shown != name:
                self.paths.append(below)
            told_by_pair = pair is not None and name == "value" and self._is_secret_name(pair)
            if (told_by_pair or self._is_secret_name(name)) and _may_be_secret(value):
                self.paths.append(below)
                walked[shown] = MASK
            else:
                walked[shown] = self.value(value, below)
        return walked

    def _text(self, text: str, path: str) -> str:
        if text.lstrip()[:1] in ("{", "["):
            try:
                tree = json.loads(text, object_pairs_hook=_unique)
            except _DuplicateKey:
                raise
            except ValueError:
                pass
            else:
                before = len(self.paths)
                tree = self.value(tree, path)
                return json.dumps(tree) if len(self.paths) > before else text
        masked = self._scrubber.without_shapes(text)
        if masked != text:
            self.paths.append(path)
        return masked

    def _is_secret_name(self, name: str) -> bool:
        return name in self._fields or self._scrubber.is_telling(name)


class _DuplicateKey(ValueError):
    """An object has a key twice: which value a reader takes is anybody's guess."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DuplicateKey
    return members


def _pair(members: Mapping[str, object]) -> str | None:
    """Give the name in ``{"key" or "name": <name>, "value": ...}``, a pair written as an object."""
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
        # What is nothing but separators is empty to the look, and no secret.
        return bool(value.translate(_SQUEEZE_NAME).strip("*"))
    return bool(value) or isinstance(value, int | float)


def _masked(match: re.Match[str]) -> str:
    kept = match.groupdict()
    return (kept.get("user") or kept.get("query") or "") + MASK


def _squeezed(name: str) -> str:
    return name.lower().translate(_SQUEEZE_NAME)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
