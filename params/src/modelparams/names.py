"""Names of models and versions, parsed once at the edge."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Self

import semver

from modelparams.errors import InvalidName, InvalidVersion

# The CRDs hold the same patterns (tests/contract): no lookahead, since the API server matches by RE2.
MODEL_PATTERN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NUMBER = r"(0|[1-9][0-9]*)"
# An identifier is a number without leading zeros, or has a letter or an inner dash. One that begins or ends with
# a dash is legal in semver, but <model>-<version> would then be no name of a Kubernetes object.
_IDENTIFIER = rf"({_NUMBER}|[0-9]*[a-z]([-0-9a-z]*[0-9a-z])?|[0-9]+-[-0-9a-z]*[0-9a-z])"
VERSION_PATTERN = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_IDENTIFIER}(\.{_IDENTIFIER})*)?"
_COMPARATOR = rf"(>=|<=|>|<|=|==|!=)?{VERSION_PATTERN}"
RANGE_PATTERN = rf"{_COMPARATOR}( {_COMPARATOR})*"
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*"
KEY_PATTERN = f"{_SEGMENT}(/{_SEGMENT})*"
"""A key in an object store, and so what a source's prefix may be."""
MODEL_MAX, VERSION_MAX, RANGE_MAX = 63, 63, 256

_MODEL, _VERSION, _RANGE = re.compile(MODEL_PATTERN), re.compile(VERSION_PATTERN), re.compile(RANGE_PATTERN)


@dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A DNS-1123 label, at most 63 characters: ``smollm2``.

    Raises:
        InvalidName: the text is none.
    """

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MODEL_MAX or not _MODEL.fullmatch(self.text):
            raise InvalidName(f"{self.text[:80]!r} is no model name")

    def __str__(self) -> str:
        return self.text


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version in lower case without build metadata (semver.org 2.0.0, §9 and §10).

    Build metadata is refused since it does not take part in precedence: two versions would tie.

    Raises:
        InvalidVersion: the text is none.
    """

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > VERSION_MAX or not _VERSION.fullmatch(self.text):
            raise InvalidVersion(f"{self.text[:80]!r} is no semantic version")

    @classmethod
    def from_directory(cls, name: str) -> Self:
        """Read a directory's name, ``v1.2.3``."""
        return cls(name.removeprefix("v"))

    @property
    def parsed(self) -> semver.Version:
        """The same for comparisons and ranges."""
        return semver.Version.parse(self.text)

    def __lt__(self, other: Version) -> bool:
        return self.parsed < other.parsed

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Comparators joined by one blank each, all of which must hold: ``>=1.4.0 <2.0.0``.

    A pre-release is inside only if a comparator names a pre-release of the same major.minor.patch,
    the rule of npm's node-semver, so that ``>=1.0.0`` never picks up ``2.0.0-rc.1`` by surprise.

    Raises:
        InvalidVersion: the text is no range.
    """

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > RANGE_MAX or not _RANGE.fullmatch(self.text):
            raise InvalidVersion(
                f"{self.text[:80]!r} is no range of versions",
                hint="write comparators with one blank between them, such as '>=1.4.0 <2.0.0'",
            )

    def _comparators(self) -> tuple[tuple[str, semver.Version], ...]:
        found = (re.fullmatch(r"([<>=!]*)(.+)", part) for part in self.text.split(" "))
        return tuple((match[1] or "==", semver.Version.parse(match[2])) for match in found if match)

    @property
    def is_empty(self) -> bool:
        """Whether comparators contradict each other, so that no version can be inside: ``>=2.0.0 <1.0.0``."""
        bounds = self._comparators()
        low = max(((bound, sign == ">") for sign, bound in bounds if sign in (">", ">=", "=", "==")), default=None)
        high = min(((bound, sign != "<") for sign, bound in bounds if sign in ("<", "<=", "=", "==")), default=None)
        if low is None or high is None:
            return False
        return low[0] > high[0] or (low[0] == high[0] and (low[1] or not high[1]))

    @classmethod
    def same_major(cls, version: Version) -> Self:
        """The default of a rollout that was made for `version`: up to the next major."""
        return cls(f">={version.parsed.major}.0.0 <{version.parsed.major + 1}.0.0")

    def __contains__(self, version: Version) -> bool:
        comparators = self._comparators()
        if version.parsed.prerelease and not any(
            bound.prerelease and bound.finalize_version() == version.parsed.finalize_version()
            for _, bound in comparators
        ):
            return False
        return all(
            version.parsed.match(f"{'==' if operator == '=' else operator}{bound}") for operator, bound in comparators
        )

    def __str__(self) -> str:
        return self.text


def object_name(model: ModelName, version: Version) -> str:
    """The one name that a version's Kubernetes object may have: ``<model>-<version>``."""
    return f"{model}-{version}"
