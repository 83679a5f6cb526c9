from __future__ import annotations

import re

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from modelparams.errors import InvalidName, InvalidVersion
from modelparams.names import ModelName, Version, VersionRange, object_name

VERSIONS = st.from_regex(r"\A[0-9]{1,2}\.[0-9]\.[0-9](-(alpha|rc)(\.[0-9])?)?\Z").filter(semver.Version.is_valid)


@pytest.mark.parametrize("text", ["a", "0", "smollm2", "all-minilm-l6-v2", "a--b", "x" * 63])
def test_a_model_name_is_a_dns_label(text):
    assert str(ModelName(text)) == text


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "a b", "ä", "a\n", "x" * 64])
def test_another_text_is_no_model_name(text):
    with pytest.raises(InvalidName, match="no model name"):
        ModelName(text)


@pytest.mark.parametrize(
    "text", ["0.0.0", "1.4.2", "10.20.30", "1.0.0-rc.1", "1.0.0-alpha-2.b", "1.0.0-0a", "1.0.0-" + "a" * 57]
)
def test_a_version_is_semantic(text):
    assert str(Version(text)) == text
    assert Version.from_directory(f"v{text}") == Version.from_directory(text) == Version(text)
    with pytest.raises(InvalidVersion):
        Version.from_directory(f"vv{text}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "v1.0.0",
        "1.0.0.0",
        "01.0.0",
        "1.00.0",
        "1.0.0+build",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0-0-",
        "1.0.0-a-",
        "1.0.0-rc..1",
        "1.0.0-RC.1",
        "1.0.0\n",
        " 1.0.0",
        "1.0.x",
        "1.0.0-" + "a" * 58,
        "１.0.0",
    ],
)
def test_another_text_is_no_version(text):
    with pytest.raises(InvalidVersion, match="no semantic version"):
        Version(text)


@given(VERSIONS, VERSIONS)
def test_versions_are_ordered_as_semver_orders_them(one, other):
    assert (Version(one) < Version(other)) == (semver.Version.parse(one) < semver.Version.parse(other))
    assert sorted([Version(one), Version(other)]) == sorted([Version(other), Version(one)])


def test_the_order_is_that_of_the_specification():
    texts = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
    ]
    assert [str(version) for version in sorted(map(Version, reversed(texts)))] == texts


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        pytest.param(">=1.4.0 <2.0.0", ["1.4.0", "1.99.0"], ["1.3.9", "2.0.0", "2.0.0-rc.1"], id="from-to"),
        pytest.param("1.2.3", ["1.2.3"], ["1.2.4", "1.2.2"], id="exactly"),
        pytest.param("=1.2.3", ["1.2.3"], ["1.2.4"], id="exactly-with-a-sign"),
        pytest.param(">1.0.0 !=1.1.0", ["1.0.1", "1.2.0"], ["1.0.0", "1.1.0"], id="but-one"),
        pytest.param("<=1.0.0", ["0.1.0", "1.0.0"], ["1.0.1", "1.0.0-rc.1"], id="up-to"),
        pytest.param(">=1.0.0", ["1.0.0", "9.0.0"], ["2.0.0-rc.1", "1.0.0-rc.1"], id="no-pre-release-by-surprise"),
        pytest.param(">=2.0.0-rc.1", ["2.0.0-rc.1", "2.0.0-rc.2", "2.0.0", "3.0.0"], ["2.0.1-rc.1"], id="asked-for"),
    ],
)
def test_a_range_takes_what_all_comparators_take(text, inside, outside):
    wanted = VersionRange(text)
    assert [v for v in inside if Version(v) not in wanted] == []
    assert [v for v in outside if Version(v) in wanted] == []


@pytest.mark.parametrize(
    ("text", "is_empty"),
    [
        (">=2.0.0 <1.0.0", True),
        (">=1.0.0 <1.0.0", True),
        (">1.0.0 <=1.0.0", True),
        ("1.0.0 2.0.0", True),
        (">=1.0.0-rc.1 <1.0.0-alpha", True),
        (">=1.0.0 <=1.0.0", False),
        (">=1.0.0 <2.0.0", False),
        (">=2.0.0 >=1.0.0", False),
        ("<2.0.0 <1.0.0 !=0.1.0", False),
        (">=1.0.0-rc.1 <1.0.0", False),
    ],
)
def test_comparators_that_contradict_each_other_are_told_apart(text, is_empty):
    assert VersionRange(text).is_empty is is_empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ">=",
        "^1.0.0",
        "~1.0.0",
        "1.x",
        ">=1.0.0,<2.0.0",
        " >=1.0.0",
        ">=1.0.0  <2.0.0",
        ">=1.0.0 || <2.0.0",
        "=>1.0.0",
        ">=100.0.0 " + " ".join(["!=1.0.0"] * 31),
    ],
)
def test_another_text_is_no_range(text):
    with pytest.raises(InvalidVersion):
        VersionRange(text)


def test_a_range_may_be_as_long_as_its_field():
    longest = ">=10.0.0 " + " ".join(["!=1.0.0"] * 31)
    assert len(longest) == 256
    assert Version("10.0.1") in VersionRange(longest)


def test_the_default_range_ends_before_the_next_major():
    wanted = VersionRange.same_major(Version("1.4.2"))
    assert str(wanted) == ">=1.0.0 <2.0.0"
    assert Version("1.99.0") in wanted
    assert Version("2.0.0") not in wanted
    assert Version("2.0.0-rc.1") not in wanted


@given(VERSIONS)
def test_an_objects_name_is_one_that_kubernetes_takes(version):
    name = object_name(ModelName("smollm2"), Version(version))
    assert name == f"smollm2-{version}"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)
