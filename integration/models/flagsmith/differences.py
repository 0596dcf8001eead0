"""Where SDKs that evaluate documents by themselves differ from the filter, which keeps to the Edge Proxy.

`OPERATORS`: conditions, by operator, operand and kind of trait. `PLACES`: all else. `RECORDED`: what of it
the recorded environment shows. A row that is not seen any more fails the tests, as a difference without one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from models.flagsmith.documents import Json, condition, environment, identity, rule, segment, state

VERSIONS = {"python": "flagsmith 6.3.0, flagsmith-flag-engine 11.1.1", "node": "flagsmith-nodejs 8.1.2"}

COMPARISONS = (
    "EQUAL",
    "NOT_EQUAL",
    "GREATER_THAN",
    "GREATER_THAN_INCLUSIVE",
    "LESS_THAN",
    "LESS_THAN_INCLUSIVE",
)

# === Conditions ===

# What is tried with each of the traits below. Left out is what is an error: a bad pattern, a divisor of 0.
GRID: list[tuple[str, str | None]] = [
    *(
        (operator, operand)
        for operator in COMPARISONS
        for operand in ("18", "1.5", "18.0", "true", "False", "1", "0", "abc", "", "1.2.3:semver", "x:semver")
    ),
    *(
        (operator, operand)
        for operator in ("CONTAINS", "NOT_CONTAINS")
        for operand in ("a", "1", "tr", "T", "")
    ),
    *(
        ("IN", operand)
        for operand in ("a,b", "a, b", "18,19", "1.5,2", "0,1", "true", '["a","b"]', "[18]", "")
    ),
    *(("REGEX", operand) for operand in ("^a", "b", "^[0-9]+$", "rue", "8$", r"^\w$", "^(?=a)a", "")),
    *(("MODULO", operand) for operand in ("2|0", "2|1", "1.5|0", "0.1|0.1", "2", "2|x")),
    ("IS_SET", None),
    ("IS_NOT_SET", None),
    *(("PERCENTAGE_SPLIT", operand) for operand in ("20", "50", "80", "x")),
]
TRAITS: list[Any] = [
    *(None, True, False, 0, 1, 18, -3, 1.5, 0.3, 18.0, 2.0),
    *("18", "18.0", "1.5", "1", "0", "007", "true", "True", "False"),
    *("abc", "a", "b", " b", "xab", "é", "", "1.2.3", "1.3.0-rc.1"),
]


def kind_of(value: Any) -> str:
    """The kind of a trait's value, for `Operator.kinds`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "whole float" if value.is_integer() else "float"
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        return "number as text"
    return "truth as text" if value.lower() in ("true", "false") else "text"


def grid(key: str) -> Json:
    """A document with a feature for each condition, `f<1000 + its place>`: whether the trait `t` meets it."""
    states, segments = [], []
    for number, (operator, operand) in enumerate(GRID, 1000):
        states.append(state(number, "out"))
        override = state(number, "in", feature_segment={"priority": 1})
        segments.append(segment(number, [rule("ALL", [condition(operator, "t", operand)])], [override]))
    return environment(key, states, segments)


NUMBERS = ("int", "float", "whole float")
TEXTS = ("number as text", "truth as text", "text")
ALL = ("null", "bool", *NUMBERS, *TEXTS)


@dataclass(frozen=True)
class Operator:
    """A difference in what conditions mean. It is seen in some, not in all, of what it names."""

    sdk: str
    operators: tuple[str, ...]
    kinds: tuple[str, ...]
    reason: str
    operands: tuple[str, ...] | None = None  # None: all

    def names(self, sdk: str, operator: str, operand: str | None, value: Any) -> bool:
        return (
            sdk == self.sdk
            and operator in self.operators
            and kind_of(value) in self.kinds
            and (self.operands is None or operand in self.operands)
        )


WITH_TEXT = ("CONTAINS", "NOT_CONTAINS", "IN", "REGEX", "PERCENTAGE_SPLIT")
OPERATORS = [
    Operator(
        "python",
        ("IS_SET", "IS_NOT_SET", *WITH_TEXT),
        ("null",),
        "a null trait is no trait; in the filter it is one, whose text is empty",
    ),
    Operator(
        "python",
        COMPARISONS,
        ("bool",),
        "a condition says true unless it says False or false, and false is less",
    ),
    Operator(
        "python",
        (*COMPARISONS, *WITH_TEXT),
        ("number as text",),
        "a text like a number is a number, without zeros before it",
    ),
    Operator(
        "python",
        COMPARISONS,
        ("truth as text",),
        "texts are compared as texts; in the filter true is True",
        ("true", "False"),
    ),
    Operator("python", ("CONTAINS", "NOT_CONTAINS"), ("bool", *NUMBERS), "neither holds of what is no text"),
    Operator("python", ("IN",), ("text",), "space after a comma counts", ("a, b",)),
    Operator("python", ("IN",), ("text", "int"), "a list in JSON is one", ('["a","b"]', "[18]")),
    Operator("python", ("IN",), ("float", "whole float"), "a float is in no list"),
    Operator("python", ("REGEX",), ALL, "a pattern is found at the beginning alone", ("b", "rue", "8$")),
    Operator(
        "python", ("REGEX",), ("whole float",), "2.0 as text is 2.0, in the filter 2", ("^[0-9]+$", r"^\w$")
    ),
    Operator(
        "python", ("REGEX",), ("text",), r"\d, \w and \s are Unicode's, in the filter ASCII's", (r"^\w$",)
    ),
    Operator("python", ("REGEX",), ("text",), "patterns may look ahead and behind", ("^(?=a)a",)),
    Operator("python", ("MODULO",), ("bool",), "true is 1 and false is 0"),
    Operator("python", ("MODULO",), ("int",), "the remainder has the divisor's sign", ("2|1",)),
    Operator("python", ("MODULO",), (*NUMBERS, "number as text"), "the remainder is exact", ("0.1|0.1",)),
    Operator(
        "python",
        ("PERCENTAGE_SPLIT",),
        ("bool", "whole float"),
        "their texts are True and 2.0, in the filter true and 2",
    ),
    Operator(
        "node",
        ("IS_SET", "IS_NOT_SET", "CONTAINS", "NOT_CONTAINS", "IN", "REGEX"),
        ("null",),
        "a null trait is no trait; in the filter it is one, whose text is empty",
    ),
    Operator(
        "node",
        COMPARISONS,
        ("bool",),
        "a condition says true unless it says False or false, and false is less",
    ),
    Operator(
        "node",
        COMPARISONS,
        ("int",),
        "numbers are floats; in the filter a whole one fits no 1.5",
        ("1.5", "18.0"),
    ),
    Operator(
        "node", ("NOT_EQUAL",), NUMBERS, "no number is equal to what is none; in the filter that fits nothing"
    ),
    Operator(
        "node",
        COMPARISONS,
        ("number as text", "truth as text"),
        "texts are compared as texts; in the filter 18.0 is 18",
    ),
    Operator(
        "node",
        ("NOT_EQUAL",),
        TEXTS,
        "what is no version is not equal to one; in the filter that fits nothing",
        ("1.2.3:semver", "x:semver"),
    ),
    Operator("node", ("CONTAINS", "NOT_CONTAINS"), ("bool", *NUMBERS), "neither holds of what is no text"),
    Operator(
        "node", ("CONTAINS", "IN"), ("text",), "an empty text contains nothing and is in no list", ("",)
    ),
    Operator("node", ("IN",), ("int",), "0 is in no list", ("0,1",)),
    Operator("node", ("IN",), ("text",), "space after a comma counts", ("a, b",)),
    Operator(
        "node", ("IN",), ("text", "int", "number as text"), "a list in JSON is one", ('["a","b"]', "[18]")
    ),
    Operator("node", ("REGEX",), ALL, "an empty pattern is found nowhere", ("",)),
    Operator("node", ("REGEX",), ("text",), "patterns may look ahead and behind", ("^(?=a)a",)),
    Operator("node", ("MODULO",), (*NUMBERS, "number as text"), "the remainder is exact", ("0.1|0.1",)),
    Operator("node", ("PERCENTAGE_SPLIT",), ALL, "a percentage of a trait holds for nobody"),
]

# === All else ===


@dataclass(frozen=True)
class Place:
    """A difference that one feature shows. `identity`: None for the flags without one."""

    reason: str
    feature: str
    identity: str | None
    filter: Any  # its value
    python: Any
    node: Any
    traits: tuple[tuple[str, Any], ...] = ()


PLACES = [
    Place("segments are not evaluated without an identity", "f1", None, "in", "out", "out"),
    Place(
        "equal priorities: the smaller id as text, the first one, the smaller id", "f2", "a", "10", "9", "9"
    ),
    Place("a condition may read another flag's state", "f3", "a", "out", "in", "out"),
    Place("an unknown operator holds for nobody", "f4", "a", "in", "out", "out", (("plan", "pro"),)),
    Place("an identity like a number has no override with zeros before it", "f5", "007", "in", "out", "in"),
    Place("an identity like a number has the override of that number", "f12", "08", "out", "in", "out"),
    Place("an identity like a number has the override of that number", "f12", "8", "in", "in", "in"),
    Place("an override of the identity x,y is one of x and y", "f6", "x,y", "in", "in", "out"),
    Place("an override of the identity x,y is one of x and y", "f6", "x", "out", "out", "in"),
    Place("overrides that say 1 and true are one", "f7", "number", 1, 1, 1),
    Place("overrides that say 1 and true are one", "f7", "truth", True, 1, True),
    Place("traits of an identity in the document count", "f8", "stored", "out", "out", "in"),
    Place("traits of an identity with an override stay", "f8", "kept", "in", "in", "in", (("plan", "pro"),)),
    Place("traits of an identity with an override stay", "f8", "kept", "out", "out", "in"),
    Place(
        "a false trait of an identity with an override", "f9", "kept", "in", "in", "out", (("staff", False),)
    ),
    Place("an override of an identity has variants", "f10", "kept", "own", "own", "variant"),
]

# The same of the recorded environment: of all that test_flagsmith_sdks.py asks about, these alone differ.
RECORDED = [
    Place("segments are not evaluated without an identity", "max_items", None, 30, 25, 25),
    Place("segments are not evaluated without an identity", "dark_mode", None, "forced", "", ""),
    Place("segments are not evaluated without an identity", "beta_bool", None, False, True, True),
    Place("true is every condition's value", "plan_banner", "u", "basic", "adult", "adult", (("age", True),)),
    Place("texts are texts", "plan_banner", "u", "basic", "basic", "adult", (("age", "2"),)),
    Place("space after a comma counts", "city_promo", "u", "city", None, None, (("city", "Oslo"),)),
    Place("space after a comma counts", "city_promo", "u", None, "city", "city", (("city", " Oslo"),)),
    Place(
        "$ is before the last line's end, too",
        "banner_text",
        "u",
        "Hello",
        "Hello colleague",
        "Hello",
        (("email", "x@acme.test\n"),),
    ),
    Place("a null trait is none", "dark_mode", "u", "", "forced", "forced", (("onboarded", None),)),
    Place("a text like a number is one", "score_gate", "u", "high", None, "high", (("score", "2"),)),
    Place("numbers are floats", "score_gate", "u", None, None, "high", (("score", 2),)),
]


def places(key: str) -> Json:
    """The document of `PLACES`."""

    def when(
        number: int, feature: int, *conditions: Json, kind: str = "ALL", value: str = "in", **fields: Any
    ) -> Json:
        fields.setdefault("feature_segment", {"priority": 1})
        return segment(number, [rule(kind, conditions)], [state(feature, value, **fields)])

    pro = condition("EQUAL", "plan", "pro")
    variant = {
        "id": 1,
        "percentage_allocation": 100.0,
        "multivariate_feature_option": {"id": 1, "value": "variant"},
        "mv_fs_value_uuid": "00000000-0000-4000-8000-000000000001",
    }
    segments = [
        when(1, 1, pro, kind="NONE"),
        when(9, 2, condition("IS_NOT_SET", "nothing", None), value="9"),
        when(10, 2, condition("IS_NOT_SET", "nothing", None), value="10"),
        when(11, 3, condition("EQUAL", "$.flags.f2.enabled", "true")),
        when(12, 4, condition("ALMOST", "plan", "pro")),
        when(13, 8, pro),
        when(14, 9, condition("EQUAL", "staff", "false")),
    ]
    identities = [
        identity("007", [state(5, "in")]),
        identity("8", [state(12, "in")]),
        identity("x,y", [state(6, "in")]),
        identity("number", [state(7, 1)]),
        identity("truth", [state(7, True)]),
        identity("stored", [state(11, "in")], {"plan": "pro"}),
        identity("kept", [state(10, "own", multivariate_feature_state_values=[variant])]),
    ]
    return environment(key, [state(number, "out") for number in range(1, 13)], segments, identities)
