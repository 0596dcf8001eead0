"""Where engines of flagd's definitions differ from the filter, which keeps to flagd's own engine in Go.

`OPERATORS`: rules of one operator, by its operand and the kind of value. `PLACES`: all else that libraries of
JavaScript and Python do otherwise. A row that is not seen any more fails the tests, as a difference without
one. Of errors it is compared that there is one: each library has codes of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Json = Any

VERSIONS = {"node": "@openfeature/flagd-core 4.0.1", "python": "openfeature-flagd-core 2.0.0"}

# === One operator, one value ===

COMPARISONS = ("<", "<=", ">", ">=")
LOOSE = ("==", "!=")
STRICT = ("===", "!==")
EQUALITY = (*LOOSE, *STRICT)
OPERANDS: list[Json] = [0, 1, 18, 1.5, "", "0", "1", "a", "true", None, True, False]
# What is tried with each of the values below, which is the variable v.
GRID: list[tuple[str, Json]] = [
    *((operator, operand) for operator in (*EQUALITY, *COMPARISONS) for operand in OPERANDS),
    *(("in", operand) for operand in ("abc", "118", "", ["a", "1", "true"], [1, 18, 1.5], [True, None], [])),
    *((operator, operand) for operator in ("starts_with", "ends_with") for operand in ("a", "", "1", 1)),
    *(("sem_ver", [operator, "1.2.3"]) for operator in ("=", "!=", "<", ">=", "^", "~", "==")),
    *(("sem_ver", ["=", operand]) for operand in ("1", "v18", 1.5, "1.5.0", "1.2.3+b", "x")),
    *((operator, operand) for operator in ("+", "-", "*", "/", "%", "min", "max") for operand in (1, 2, 0.5)),
    *(("cat", operand) for operand in ("", "a", 1)),
    *(("substr", operand) for operand in (0, 1, -1)),
    *((operator, None) for operator in ("!", "!!", "if", "missing")),
    *(("fractional", variants) for variants in ([["a", 1], ["b", 1]], [["a", 0], ["b", 3]])),
]
VALUES: list[Json] = [
    *(None, True, False, 0, 1, -3, 18, 1.5),
    *("", "0", "1", "18", "1.5", "abc", "a", "true", "1.2.3", "v1.2.3", "1.5.0-rc.1", "é", " 1"),
]
# What results are called, so that it is seen which of them it was.
RESULTS = ["true", "false", "null", "", *map(str, range(-6, 40)), "1.5", "0.5", "-1.5", "2.5", "-0.5", "0.75"]
RESULTS += ["a", "b", "abc", "aa", "é", "éa", "é1", "abca", "abc1", "a1", "truea", "true1", "11", "181"]
RESULTS += ["1a", "18a"]
RESULTS += ["bc", "c", "8", "rue", "e", "ab", "yes", "no", "[v]", "v", "[]", "[a]", "[1]", "1.2.3"]
RESULTS += ["v1.2.3", "1.5.0-rc.1"]


def rule_of(operator: str, operand: Json) -> Json:
    """The rule that this operator and operand stand for."""
    value = {"var": "v"}
    match operator:
        case "!" | "!!":
            return {operator: [value]}
        case "if":
            return {"if": [value, "yes", "no"]}
        case "missing":
            return {"missing": ["v"]}
        case "sem_ver" | "fractional":
            return {operator: [value, *operand]}
        case _:
            return {operator: [value, operand]}


def kind_of(value: Json) -> str:
    """The kind of a value or an operand, for `Operator`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "list"
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return "numeral"
    return "empty" if not value else "spaced" if value[0] == " " else "word"


def grid() -> Json:
    """A document with a flag for each rule, `f<its place>`."""
    flags = {
        f"f{number}": {
            "state": "ENABLED",
            "variants": dict.fromkeys(RESULTS, "value"),
            "targeting": rule_of(operator, operand),
        }
        for number, (operator, operand) in enumerate(GRID)
    }
    return {"flags": flags}


@dataclass(frozen=True)
class Operator:
    """A difference in what operators mean. It is seen in some, not in all, of what it names."""

    engine: str
    operators: tuple[str, ...]
    values: tuple[str, ...]
    operands: tuple[str, ...]
    reason: str

    def names(self, engine: str, operator: str, operand: Json, value: Json) -> bool:
        return (
            engine == self.engine
            and operator in self.operators
            and kind_of(value) in self.values
            and kind_of(operand) in self.operands
        )


ARITHMETIC = ("+", "-", "*", "/", "%", "min", "max")
ORDERED = ("==", "!=", *COMPARISONS)
NUMBERS = ("bool", "number")
TEXTS = ("numeral", "empty", "spaced", "word")
ALL = ("null", *NUMBERS, *TEXTS)
OPERATORS = [
    Operator("node", ORDERED, ("null",), (*NUMBERS, "empty", "numeral"), "null is 0"),
    Operator("node", ORDERED, (*NUMBERS, "empty", "numeral", "spaced"), ("null",), "null is 0"),
    Operator("node", ORDERED, ("word",), NUMBERS, "a text that is no number cannot be compared with one"),
    Operator("node", ORDERED, NUMBERS, ("word",), "a text that is no number cannot be compared with one"),
    Operator("node", ("in",), ("null", *NUMBERS), TEXTS, "what is no text is looked for as text"),
    Operator(
        "node", ("in",), ("number",), ("list",), "a number is not found among texts, and those are no error"
    ),
    Operator("node", ("in",), ("empty",), ("empty",), "nothing is in an empty text"),
    Operator("node", ARITHMETIC[:-2], ("null", "bool"), ("number",), "null and false are 0, true is 1"),
    Operator("node", ARITHMETIC, ("word",), ("number",), "a text that is no number is an error, and not 0"),
    Operator("node", ("min", "max"), TEXTS, ("number",), "no text is a number"),
    Operator(
        "node", ("cat",), ("null", "bool"), ("empty", "word", "number"), "null and true are their names"
    ),
    Operator("node", ("substr",), ("null", "number"), ("number",), "only texts have parts"),
    Operator("node", ("missing",), ALL, ("null",), "a list is called as JavaScript writes it, not as JSON"),
    Operator(
        "node", ("fractional",), ("null",), ("list",), "where the value is missing, nobody has a bucket"
    ),
    Operator(
        "node",
        (*ORDERED, *ARITHMETIC),
        ("spaced",),
        (*NUMBERS, "null"),
        "space around a number does not count",
    ),
    Operator("node", ("cat",), ("spaced",), ("empty", "word", "number"), "what is joined is not trimmed"),
    Operator("python", ("==", "!=", "<=", ">="), ("null",), NUMBERS, "null is 0"),
    Operator("python", ("==", "!=", "<=", ">="), NUMBERS, ("null",), "null is 0"),
    Operator("python", COMPARISONS, ("null",), TEXTS, "null is the text None"),
    Operator("python", COMPARISONS, TEXTS, ("null",), "null is the text None"),
    Operator("python", ORDERED, ("empty",), NUMBERS, "an empty text is no number"),
    Operator("python", ORDERED, NUMBERS, ("empty",), "an empty text is no number"),
    Operator("python", STRICT, ("bool",), ("number",), "true is 1"),
    Operator("python", STRICT, ("number",), ("bool",), "true is 1"),
    Operator("python", ("in",), ("null", *NUMBERS), TEXTS, "what is no text is looked for as text"),
    Operator(
        "python",
        ("in",),
        NUMBERS,
        ("list",),
        "true is 1; numbers are not found among texts, and those are no error",
    ),
    Operator("python", ARITHMETIC, ("null", "bool"), ("number",), "null and false are 0, true is 1"),
    Operator("python", ARITHMETIC, TEXTS, ("number",), "texts are no numbers, or not those of Go"),
    Operator("python", ("+", "-", "*", "/", "%"), ("number",), ("number",), "a result of 2.0 is called 2.0"),
    Operator("python", ("%",), ("number",), ("number",), "the remainder has the divisor's sign"),
    Operator("python", ("cat",), ("null",), ("empty", "word", "number"), "null is its name"),
    Operator("python", ("substr",), ("null", "bool"), ("number",), "null and true are their names"),
    Operator("python", ("substr",), ("number", *TEXTS), ("number",), "an empty name is no variant"),
    Operator("python", ("cat",), ("empty",), ("empty",), "an empty name is no variant"),
    Operator(
        "python",
        ("missing",),
        ("null", "empty"),
        ("null",),
        "an empty text is missing; a list is called as Python writes it",
    ),
    Operator("python", ORDERED, ("spaced",), (*NUMBERS, "null"), "space around a number does not count"),
    Operator("python", ("cat",), ("spaced",), ("empty", "word", "number"), "what is joined is not trimmed"),
]

# === All else ===

ERROR, NULL = "an error", "the default variant"
ABOUT: dict[str, Json] = {
    "targetingKey": "u",
    "tags": ["eu"],
    "sizes": [1, 5],
    "n": 5,
    "rule": {"==": [1, 1]},
}
SUM = {"reduce": [{"var": "sizes"}, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 0]}


@dataclass(frozen=True)
class Place:
    """A rule that means something else, of whom `ABOUT` says: the names of what it gives."""

    reason: str
    rule: Json
    filter: str
    node: str
    python: str


PLACES = [
    Place(
        "the second side of a comparison is not computed",
        {"if": [{"==": ["a", {"if": [{"in": ["eu", {"var": "tags"}]}, "a", "b"]}]}, "yes", "no"]},
        "yes",
        ERROR,
        "yes",
    ),
    Place("the same of a sum", {"if": [{">": [3, SUM]}, "yes", "no"]}, "no", ERROR, "no"),
    Place("an empty object is true", {"if": [{}, "yes", "no"]}, "no", "no", "yes"),
    Place("a list is equal to itself", {"==": [{"var": "sizes"}, {"var": "sizes"}]}, "false", ERROR, "true"),
    Place(
        "an unknown operator concerns whoever reaches it",
        {"if": [True, "yes", {"unheard_of": ["a"]}]},
        "yes",
        ERROR,
        "yes",
    ),
    Place("all of a missing list", {"all": [{"var": "nothing"}, {"var": ""}]}, "false", "true", "false"),
    Place("a weight may be written 1.0", {"fractional": ["x", ["a", 1.0]]}, "a", "a", NULL),
    Place("a bucket may have a third member", {"fractional": ["x", ["a", 1, 2]]}, "a", NULL, NULL),
    Place("a weight of null is 1", {"fractional": ["x", ["a", None]]}, "a", NULL, NULL),
    Place("a list is no variant", {"fractional": ["x", [["a"], 1]]}, NULL, NULL, ERROR),
    Place(
        "a short version has no pre-release", {"sem_ver": ["1-beta", "=", "1.0.0-beta"]}, NULL, NULL, "true"
    ),
    Place("operators of Go's library", {"contains_any": [["a"], ["a"]]}, "true", ERROR, ERROR),
    Place("abs is one as well", {"abs": [-3]}, "3", ERROR, ERROR),
    Place("lists are not looked for", {"in": [[1], [[1]]]}, ERROR, "false", "true"),
    Place("a list as the name of a variant", {"merge": [["a"], "b"]}, "[a,b]", "a,b", ERROR),
    Place(
        "the names of members come first",
        {"some": [{"var": "sizes"}, {"==": [{"var": "n"}, 5]}]},
        "true",
        "false",
        "false",
    ),
    Place("texts are joined, lists are none", {"cat": ["a", ["b"]]}, ERROR, "ab", "ab"),
    Place("the greatest of nothing", {"max": []}, NULL, ERROR, ERROR),
]

NAMES = ["yes", "no", "a", "b", "ab", "a,b", "[a,b]", "true", "false", "3", "5", "default", "0", "-0", "1"]
NAMES += ["17", '"yes"']


def places(rows: list[Any]) -> Json:
    """A document with a flag for the rule of each row, `f<its place>`."""
    flags = {
        f"f{number}": {
            "state": "ENABLED",
            "variants": {name: name for name in NAMES},
            "defaultVariant": "default",
            "targeting": row.rule,
        }
        for number, row in enumerate(rows)
    }
    return {"flags": flags}


# === flagd's own engine, in Go ===


@dataclass(frozen=True)
class FlagdRule:
    """A rule that it evaluates otherwise, of whom `ABOUT` says: the names of what it gives."""

    reason: str
    rule: Json
    filter: str
    flagd: str


def nested(levels: int) -> Json:
    """A rule of so many operators, each in a list."""
    rule: Json = True
    for _ in range(levels):
        rule = {"!!": [rule]}
    return rule


FLAGD_RULES = [
    FlagdRule("-0 is 0", {"*": [0, -1]}, "0", "-0"),
    FlagdRule("what is in the context is no rule", {"if": [True, {"var": "rule"}]}, ERROR, "true"),
    FlagdRule("numbers in texts are decimal", {"+": ["0x1p4", 1]}, "1", "17"),
    FlagdRule("and have digits alone", {"==": ["1_0", 10]}, "false", "true"),
    FlagdRule("a place beyond 64 bits is the end", {"substr": ["yes", 0, 1e21]}, "yes", ERROR),
    FlagdRule(
        "a nested list that is none is an error",
        {"all": [[[1, 2]], {"some": [{"var": "none"}, True]}]},
        ERROR,
        "false",
    ),
    FlagdRule("a text is a variant's name as it is", {"cat": ['"', "yes", '"']}, '"yes"', ERROR),
    FlagdRule("rules nest at most 100 levels", nested(51), ERROR, "true"),
]


@dataclass(frozen=True)
class FlagdDocument:
    """A document that it reads otherwise: what the flag `f` is."""

    reason: str
    document: Json
    filter: Json
    flagd: Json


def flag(**members: Json) -> Json:
    return {"state": "ENABLED", "variants": {"yes": "yes", "no": "no"}, "defaultVariant": "no"} | members


REFERRED = {"$ref": "named"}
FLAGD_DOCUMENTS = [
    FlagdDocument(
        "a reference is one in targeting alone",
        {"$evaluators": {"named": {"in": ["a", "b"]}}, "flags": {"f": flag(variants={"no": REFERRED})}},
        REFERRED,
        {"in": ["a", "b"]},
    ),
]
