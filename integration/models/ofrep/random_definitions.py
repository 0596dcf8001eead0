"""Random definitions and contexts, in two dialects.

`Plain` rules have what people write: all engines of flagd agree about them, but for what differences.py
lists. `Wild` rules have any value in any place: only flagd's own engine, in Go, says what they mean.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Json = Any
Context = dict[str, Any]

TEXTS = ["pro", "basic", "team", "", "pro plus", "zażółć", "18"]
NUMBERS = [0, 1, 5, 18, 40, 100, -3, 0.5, 2.5, 1.0]
VERSIONS = ["1.2.3", "1.2.4", "1.10.0", "2.0.0-rc.1", "2.0.0-rc.10", "2.0.0", "v1.2.3", "1", "1.2", "2.0.0+b"]
EMAILS = ["ann@staff.test", "bob@staff.test", "ann@else.test", "staff.test"]
ORDERS = ["<", "<=", ">", ">="]
SUM = {"+": [{"var": "current"}, {"var": "accumulator"}]}
TAGS = ["beta", "staff", "eu", "us"]


class Plain:
    """Rules whose parts have the types that their operators are for."""

    def __init__(self, rng: random.Random, evaluators: list[str], texts: list[str] = TEXTS) -> None:
        self.rng, self.evaluators, self.texts = rng, evaluators, texts

    def one(self, *choices: Callable[[], Json]) -> Json:
        return self.rng.choice(choices)()

    def text(self) -> Json:
        pick = self.rng.choice
        return self.one(
            lambda: pick(self.texts),
            lambda: {"var": pick(["plan", "email", "$flagd.flagKey", "home.country"])},
            lambda: {"var": ["nickname", pick(self.texts)]},
            lambda: {"cat": [{"var": "plan"}, pick([":", "-"]), {"var": "email"}]},
            lambda: {"substr": [{"var": "email"}, *pick([[0, 3], [-10], [4], [0, -5]])]},
        )

    def number(self, depth: int = 1) -> Json:
        pick = self.rng.choice
        plain = [lambda: pick(NUMBERS), lambda: {"var": pick(["age", "score", "home.floor"])}]
        if depth == 0:
            return self.one(*plain)
        return self.one(
            *plain,
            lambda: {pick("+*-"): [self.number(0), self.number(0)]},
            lambda: {"%": [{"var": "age"}, pick([2, 3, 10])]},
            lambda: {pick(["min", "max"]): [self.number(0), self.number(0), pick(NUMBERS)]},
        )

    def truth(self, depth: int = 2) -> Json:
        pick = self.rng.choice
        plain = [
            lambda: {pick(["==", "!=", "===", "!=="]): [self.text(), self.text()]} if depth else True,
            lambda: {pick(["==", "!=", *ORDERS]): [self.number(), self.number()]},
            lambda: {pick(["<", "<="]): [pick(NUMBERS), {"var": "age"}, pick(NUMBERS)]},
            lambda: {"in": [{"var": pick(["plan", "email"])}, self.rng.sample(self.texts + EMAILS, 3)]},
            lambda: {"in": [pick(["@staff.test", "ann", "pro"]), {"var": pick(["email", "plan"])}]},
            lambda: {"in": [pick(TAGS), {"var": "tags"}]},
            lambda: {
                pick(["starts_with", "ends_with"]): [
                    {"var": "email"},
                    pick(["ann", "@staff.test", "test", ""]),
                ]
            },
            lambda: {
                "sem_ver": [
                    {"var": "app"},
                    pick(["=", "!=", "<", "<=", ">", ">=", "^", "~"]),
                    pick(VERSIONS),
                ]
            },
            lambda: {"==": [{"reduce": [{"var": "sizes"}, SUM, 0]}, pick([3, 8, 13])]},
            lambda: {"var": "staff"},
            lambda: {"!": [{"missing": [pick(["nickname", "email"])]}]},
            lambda: {"==": [{"var": "$flagd.flagKey"}, pick(["f0", "f1", "f2"])]},
            lambda: {pick(["some", "none", "all"]): [{"var": "tags"}, {"==": [{"var": ""}, pick(TAGS)]}]},
            lambda: {"some": [{"var": "orders"}, {">": [{"var": "total"}, pick(NUMBERS)]}]},
            lambda: {"$ref": pick(self.evaluators)} if self.evaluators else True,
        ]
        if depth == 0 or self.rng.random() < 0.5:
            return self.one(*plain)
        inner = [self.truth(depth - 1) for _ in range(self.rng.randint(1, 3))]
        return self.one(
            lambda: {pick(["and", "or"]): inner},
            lambda: {pick(["!", "!!"]): inner[:1]},
            lambda: {"if": [inner[0], self.truth(0), self.truth(0)]},
        )

    def split(self, variants: list[str]) -> Json:
        """Buckets, with whom they are of."""
        pick = self.rng.choice
        weights = [[pick([0, 1, 10, 25, 50, 1000, -5])] if self.rng.random() < 0.8 else [] for _ in variants]
        buckets = [[variant, *weight] for variant, weight in zip(variants, weights, strict=True)]
        by = pick(
            [[], [{"var": "email"}], [{"cat": [{"var": "$flagd.flagKey"}, {"var": "email"}]}], ["salt"]]
        )
        return {"fractional": [*by, *buckets]}

    def rule(self, variants: list[str]) -> Json:
        pick = self.rng.choice

        def result() -> Json:
            return self.split(variants) if self.rng.random() < 0.3 else pick([*variants, None])

        clauses = [part for _ in range(self.rng.randint(1, 3)) for part in (self.truth(), result())]
        return self.one(
            lambda: {"if": [*clauses, result()]},
            lambda: {"if": clauses},
            lambda: {"if": [self.truth(), {"if": [self.truth(), result(), result()]}, result()]},
            lambda: self.split(variants),
        )


VALUES: dict[str, Callable[[random.Random, int], Json]] = {
    "bool": lambda rng, place: place % 2 == 0,
    "text": lambda rng, place: rng.choice(["", "on", "zażółć", "<b>&", f"v{place}"]),
    "number": lambda rng, place: rng.choice([0, place, 2.5, -7, 1e21, 9007199254740991]),
    "object": lambda rng, place: {"place": place, "list": [1, None, {"x": "y"}]},
}


def plain_document(
    rng: random.Random, flag_set: str | None = None, flags: int = 12, prefix: str = ""
) -> Json:
    """A document with flags `f0`, `f1`, …, each with variants of one type."""
    names = ["is_staff", "is_pro", "says_nothing"]
    # In Python's library an escape in the JSON of an evaluator refuses the document.
    nested = Plain(rng, [], [text for text in TEXTS if text.isascii()])
    found: dict[str, Json] = {}
    for number in range(flags):
        kind = rng.choice(list(VALUES))
        variants = [f"{kind}-{place}" for place in range(rng.randint(1, 4))]
        flag: dict[str, Json] = {
            "state": "DISABLED" if rng.random() < 0.08 else "ENABLED",
            "variants": {name: VALUES[kind](rng, place) for place, name in enumerate(variants)},
        }
        if rng.random() < 0.8:
            flag["defaultVariant"] = rng.choice(variants)
        if rng.random() < 0.85:
            flag["targeting"] = Plain(rng, names).rule(variants)
        if rng.random() < 0.4:
            flag["metadata"] = {"owner": rng.choice(["core", "shop"]), "rank": number}
        found[f"{prefix}f{number}"] = flag
    metadata = {"release": "2026.11"} | ({"flagSetId": flag_set} if flag_set else {})
    return {"$evaluators": {name: nested.truth() for name in names}, "metadata": metadata, "flags": found}


def plain_context(rng: random.Random) -> Context:
    """Somebody about whom all is known that rules ask for, but for the nickname."""
    context: Context = {
        "plan": rng.choice(TEXTS),
        "email": rng.choice(EMAILS),
        "age": rng.choice([1, 17, 18, 19, 40, 41, 100]),
        "score": rng.choice([0.25, 0.5, 2.5, 7.75, -0.5]),
        "staff": rng.random() < 0.5,
        "app": rng.choice(VERSIONS),
        "home": {"country": rng.choice(["DE", "US"]), "floor": rng.choice([-1, 0, 3])},
        "tags": rng.sample(TAGS, rng.randint(1, 3)),
        "sizes": [rng.choice([1, 2, 5, 10]) for _ in range(3)],
        "orders": [{"total": rng.choice([0, 5, 99.5]), "paid": True} for _ in range(rng.randint(1, 3))],
        "targetingKey": f"user-{rng.randint(0, 400)}",
    }
    if rng.random() < 0.3:
        context["nickname"] = rng.choice(["ann", "zażółć", "18"])
    return context


# === Any value in any place ===

SCALARS: list[Json] = [None, True, False, 0, 1, -1, 2, 2.5, -0.5, 10, 1e21, 5e-7]
SCALARS += ["", "a", "b", "ab", "1", "10", "2.5", " 1 ", "true", "null", "1.2.3", "é"]
NAMES = ["a", "b", "list", "objs", "nested", "nested.x", "nested.y.1", "list.0", "objs.1.a", "txt", "zero"]
NAMES += ["nul", "none", "", "targetingKey", "ver", "t", "$flagd.flagKey", "a.b", ".", "objs.0", "list.9"]
NAMES += ["list.x"]
ARITIES = {
    **dict.fromkeys(["==", "!=", "===", "!==", *ORDERS, "%", "in", "starts_with", "ends_with"], 2),
    **dict.fromkeys(["contains_all", "contains_any", "contains_none", "missing_some"], 2),
    **dict.fromkeys(["!", "!!", "abs", "missing"], 1),
    **dict.fromkeys(["if", "?:", "substr", "sem_ver", "set", "and", "or", "+", "-", "*", "/"], 3),
    **dict.fromkeys(["min", "max", "merge", "cat"], 3),
}
OF_LISTS = ["map", "filter", "all", "some", "none"]
# Names of what rules give, so that it is seen which of them it was.
RESULTS = ["true", "false", "null", *map(str, range(-3, 12)), "2.5", "-0.5", "0.5", "1e+21", "5e-7", "20"]
RESULTS += ["100"]
RESULTS += ["a", "b", "ab", "aa", "é", "1.2.3", "abc", "[]", "{}", "[1]", "[a]", "[null]", "[true]"]
RESULTS += ["[1,2]", "[a,b]"]
RESULTS += ["user-1", "f1", "x", "deep", " 1 ", "Abc", "hello world", "h", "hello"]


class Wild:
    """Rules that need not make sense."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def value(self, depth: int) -> Json:
        """A rule or a value."""
        dice = self.rng.random()
        if depth <= 0 or dice < 0.25:
            return self.rng.choice(SCALARS)
        if dice < 0.45:
            return {"var": self.path(depth)}
        if dice < 0.52:
            return [self.value(depth - 1) for _ in range(self.rng.randint(0, 3))]
        if dice < 0.54:
            return self.rng.choice([{}, {"a": 1, "b": {"var": "a"}}])
        return self.call(depth)

    def path(self, depth: int) -> Json:
        dice = self.rng.random()
        name = self.rng.choice(NAMES)
        if dice < 0.7:
            return name
        if dice < 0.8:
            return [name]
        if dice < 0.92:
            return [name, self.value(depth - 1)]
        return self.value(depth - 1)

    def call(self, depth: int) -> Json:
        dice = self.rng.random()
        if dice < 0.12:
            return self.of_lists(depth)
        if dice < 0.2:
            return {"fractional": self.buckets(depth)}
        if dice < 0.22:
            return {self.rng.choice(["log", "upper", "IF"]): self.value(depth - 1)}
        name = self.rng.choice(list(ARITIES))
        arguments: Json = [self.value(depth - 1) for _ in range(ARITIES[name])]
        if name == "substr":  # places beyond 64 bits mean what the machine makes of them
            arguments[1:] = [self.rng.choice([0, 1, 2, -1, 2.5, "1", {"var": "a"}]) for _ in arguments[1:]]
        dice = self.rng.random()
        if name == "sem_ver" and dice < 0.7:
            arguments[1] = self.rng.choice(["=", "!=", "<", "<=", ">", ">=", "^", "~", "=="])
            arguments[2] = self.rng.choice(
                [*VERSIONS, "1-beta", "01.2.3", "1.2.3.4", "vv1", " 1.2.3", 1, 1.2]
            )
        if dice < 0.08:
            arguments = arguments[: self.rng.randint(0, len(arguments))]
        elif dice < 0.12:
            arguments.append(self.value(depth - 1))
        elif dice < 0.2:
            arguments = self.value(depth - 1)
        return {name: arguments}

    def of_lists(self, depth: int) -> Json:
        pick = self.rng.choice
        subject = pick(
            [{"var": pick(["list", "objs", "none", "nested.y"])}, [1, 2, "a"], self.value(depth - 1)]
        )
        inner = pick(
            [{"var": ""}, {"var": "a"}, {"==": [{"var": ""}, "a"]}, {">": [{"var": "q"}, 1]}, {"var": ".a"}]
        )
        if self.rng.random() < 0.4:
            inner = self.call(depth - 1)
        if self.rng.random() < 0.2:
            return {"reduce": [subject, pick([SUM, {"var": "current"}, inner]), pick([0, 1, "", "a", False])]}
        return {pick(OF_LISTS): [subject, inner]}

    def buckets(self, depth: int) -> Json:
        pick = self.rng.choice
        weights: list[list[Json]] = [
            [],
            [1],
            [50],
            [0],
            [-3],
            [None],
            [2.5],
            ["1"],
            [1.0],
            [2147483647],
            [1, 2],
        ]
        names = pick([["a", "b"], ["a", "b", "x"], ["a"], [1, True], ["a", None]])
        by: list[Json] = pick([[], [], [{"var": "targetingKey"}], [{"var": "txt"}], [self.value(depth - 1)]])
        likely = [
            [name, *(pick(weights[:3]) if self.rng.random() < 0.8 else pick(weights))] for name in names
        ]
        return [*by, *likely, *([pick([[], "a", 5])] if self.rng.random() < 0.05 else [])]


def wild_document(rng: random.Random, flag_set: str, flags: int, prefix: str = "") -> Json:
    """A document with a rule in each flag, `f0`, `f1`, …"""
    wild = Wild(rng)
    found = {}
    for number in range(flags):
        targeting = wild.call(rng.choice([1, 2, 2, 3])) if number % 20 else wild.value(2)
        found[f"{prefix}f{number}"] = {
            "state": "ENABLED",
            "variants": dict.fromkeys([*RESULTS, "-0"], number) | rng.choice([{}, {"": number}]),
            "defaultVariant": rng.choice([*RESULTS, None]),
            "targeting": targeting,
        }
    return {"metadata": {"flagSetId": flag_set}, "flags": found}


WILD_CONTEXTS: list[Context] = [
    {
        "a": 1,
        "b": "1",
        "list": [1, 2, 3, "a", None, True],
        "objs": [{"a": 1, "q": 5}, {"a": 2, "q": 0}, {"q": 7, "p": 1}],
        "nested": {"x": "deep", "y": [10, 20]},
        "txt": "hello world",
        "zero": 0,
        "t": True,
        "nul": None,
        "targetingKey": "user-1",
        "ver": "1.2.3",
    },
    {"zero": 0, "nul": None},
    {
        "a": "b",
        "b": [1, [2, 3]],
        "list": [],
        "objs": [],
        "nested": [{"x": 1, "z": 2}],
        "txt": "",
        "zero": "0",
        "targetingKey": 5,
        "ver": 1.2,
    },
    {
        "a": 2.5,
        "b": None,
        "list": ["a", "b", "10"],
        "objs": [{"a": "z", "q": "2"}],
        "txt": "Abc",
        "targetingKey": "ann",
        "ver": "v2.0.0-rc.2+b",
    },
    {
        "a": True,
        "b": False,
        "list": "text",
        "objs": {"a": 1, "b": 2},
        "nested": None,
        "txt": 12,
        "ver": "1",
        "t": 0,
    },
    {
        "a": "",
        "b": "a",
        "list": ["x", 5],
        "txt": "é",
        "targetingKey": "",
        "t": "false",
        "zero": -0.0,
        "ver": "2",
    },
]


def wild_context(rng: random.Random) -> Context:
    """One of the contexts above with a member or two of others."""
    context = dict(rng.choice(WILD_CONTEXTS))
    for _ in range(rng.randint(0, 3)):
        other = rng.choice(WILD_CONTEXTS)
        context |= {name: other[name] for name in rng.sample(sorted(other), min(1, len(other)))}
    return context


def some_text(rng: random.Random, ascii_only: bool = False) -> str:
    letters = 'ab -_@."\\\n0' + ("" if ascii_only else "żółć€😀")
    return "".join(
        rng.choice(letters) for _ in range(rng.choice([0, 1, 2, 3, 4, 5, 23, 24, 25, 255, 256, 300]))
    )


def some_value(rng: random.Random, depth: int) -> Json:
    """Any value of JSON, nested at most so deep. Lists are in objects alone: elsewhere they are buckets."""
    powers = rng.choice([1, -1]) * 2.0 ** rng.randint(-40, 40) * rng.choice([1, 1.5, 1.0009765625])
    number = rng.choice(
        [
            rng.randint(-30, 300),
            rng.randint(-(2**40), 2**40),
            rng.randint(2**53, 2**63) & ~0x7FF,
            -(2.0 ** rng.randint(50, 70)),
            rng.uniform(-1e3, 1e3),
            powers,
            float(rng.randint(-5, 5)),
            1e300,
        ]
    )
    text = some_text(rng)
    if depth == 0 or rng.random() < 0.6:
        return rng.choice([text, text, number, number, number, True, False, None])
    members = {some_text(rng): some_value(rng, depth - 1) for _ in range(rng.randint(0, 4))}
    inner = [some_value(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    return members | ({"list": inner} if rng.random() < 0.5 else {})
