from __future__ import annotations

import ast
import re
from datetime import timedelta
from pathlib import Path

import pytest

from modelparams import errors
from modelparams.errors import ModelParamsError, by_reason, every_kind
from modelparams.failure import classify
from modelparams.reasons import Reason

PACKAGE = Path(errors.__file__).parent
KINDS = every_kind()


def named(kind: type) -> str:
    return kind.__name__


SHARED = {
    Reason.API_UNAVAILABLE: errors.APIError,  # for the loops alone; users see that the API server did not do it
    Reason.INVALID_SPEC: errors.UsageError,  # one more way in which a spec cannot be used
}


def test_a_reason_is_of_one_kind_or_shared_on_purpose():
    for reason in {kind.reason for kind in KINDS}:
        kinds = [kind for kind in KINDS if kind.reason is reason]
        assert len(kinds) == 1 or all(issubclass(kind, SHARED[reason]) for kind in kinds), kinds


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_kind_tells_what_happened_and_what_to_do(kind):
    assert kind.__doc__
    assert kind.reason is not Reason.INTERNAL_ERROR
    assert re.match(r"[a-z']", kind.hint), "a hint goes on after a full stop; str() makes the capital"
    assert not kind.hint.endswith(".")
    assert str(kind("the thing broke")) == f"the thing broke. {kind.hint[0].upper()}{kind.hint[1:]}."


@pytest.mark.parametrize(
    "kind", [errors.BlobSizeMismatch, errors.BlobDigestMismatch, errors.ManifestDigestMismatch], ids=named
)
def test_who_restores_what_was_damaged_is_told_how_to_have_it_checked_again(kind):
    assert classify(kind("it")).is_final, "so a restore alone changes nothing"
    assert re.search("restore .* delete the (refused )?ModelParamVersion and apply it again", kind.hint)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_kind_is_in_the_tree_that_the_module_shows(kind):
    assert kind.__name__ in (errors.__doc__ or "")


def test_the_tree_names_no_kind_that_is_not():
    lines = [line.partition("── ")[2] for line in (errors.__doc__ or "").splitlines() if "── " in line]
    shown = {name for line in lines for name in line.partition("  ")[0].split(", ")}
    assert [name for name in shown if not isinstance(getattr(errors, name, None), type)] == []
    assert shown >= {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_a_kind_is_classified_on_purpose(kind):
    failure = classify(kind("it"))
    assert failure.reason is kind.reason
    assert failure.message == str(kind("it"))
    assert failure.is_final == (failure.retry_after is None)


@pytest.mark.parametrize("kind", [k for k in KINDS if issubclass(k, errors.IntegrityError)], ids=named)
def test_bad_bytes_are_never_retried_into_acceptance(kind):
    assert classify(kind("it")).is_final


@pytest.mark.parametrize(
    "kind",
    [
        *(
            k
            for k in KINDS
            if issubclass(k, errors.StoreError | errors.KeyUnavailable | errors.TrustUnavailable | errors.APIError)
        ),
        errors.SlotBusy,
        errors.EngineUnavailable,
        errors.ArenaExhausted,
        errors.IllegalTransition,
    ],
    ids=named,
)
def test_a_world_that_is_not_ready_is_asked_again(kind):
    retry_after = classify(kind("it")).retry_after
    assert retry_after is not None
    assert timedelta(0) < retry_after <= timedelta(seconds=30)


def test_what_waits_for_a_person_is_asked_less_often_than_what_passes_by_itself():
    def pause(error: Exception) -> timedelta:
        retry_after = classify(error).retry_after
        return timedelta.max if retry_after is None else retry_after

    passes = [errors.StoreUnavailable("it"), errors.EngineUnavailable("it"), errors.SlotBusy("it")]
    kinds = [errors.ObjectMissing, errors.StoreDenied, errors.KeyUnavailable, errors.TrustUnavailable, errors.APIDenied]
    waits = [kind("it") for kind in kinds]
    assert max(map(pause, passes)) < min(map(pause, waits)) <= pause(KeyError("a bug, which no retry mends"))


@pytest.mark.parametrize("kind", [k for k in KINDS if issubclass(k, errors.UsageError)] + [errors.StaleTerm], ids=named)
def test_what_only_another_spec_or_order_helps_is_not_asked_again(kind):
    assert classify(kind("it")).is_final


@pytest.mark.parametrize(
    "error", [ValueError("hunter2"), KeyError("hunter2"), OSError(5, "hunter2"), KeyboardInterrupt()]
)
def test_an_unforeseen_error_is_a_bug_whose_text_is_kept_back(error):
    failure = classify(error)
    assert failure.reason is Reason.INTERNAL_ERROR
    assert type(error).__name__ in failure.message
    assert "hunter2" not in failure.message
    assert not failure.is_final


def test_a_hint_can_be_given_for_the_one_case():
    assert str(errors.ObjectMissing("it is gone", hint="look there")) == "it is gone. Look there."


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.reason not in SHARED], ids=named)
def test_what_another_process_reported_is_raised_as_the_same_kind(kind):
    error = by_reason(kind.reason, "it")
    assert type(error) is kind
    assert error.message == "it"


def test_an_unknown_report_is_a_failed_swap_that_says_so():
    error = by_reason("NeverHeardOf", "it")
    assert type(error) is errors.SwapFailed
    assert "NeverHeardOf: it" in str(error)


def _ancestors(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}


def _exposures() -> list[tuple[str, list[ast.AST]]]:
    """Each call of `.expose()` in the package, with all that it stands in."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        above = _ancestors(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "expose":
                chain, at = [], node
                while at in above:
                    at = above[at]
                    chain.append(at)
                found.append((f"{path.name}:{node.lineno}", chain))
    return found


def test_no_secret_is_exposed_into_a_message():
    exposures = _exposures()
    assert exposures, "the search itself must find something"
    for where, chain in exposures:
        assert not any(isinstance(node, ast.JoinedStr | ast.Raise) for node in chain), where


def test_reasons_are_camel_case_words_that_users_may_build_on():
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", reason) for reason in Reason)
    assert len({reason.lower() for reason in Reason}) == len(Reason)


def test_an_error_is_a_model_params_error_and_keeps_its_message():
    assert issubclass(errors.SealBroken, ModelParamsError)
    assert errors.SealBroken("x").args == ("x",)
