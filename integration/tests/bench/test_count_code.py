"""What counts as a line of code."""

from __future__ import annotations

import pytest

import count_code


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", 0),
        ("fn f() {}\n\n   \n", 1),
        ("//! a room\n/// what f does\nfn f() {} // why\n", 1),
        ("/* a /* nested */ comment\nof two lines */ fn f() {}\n", 1),
        ('const A: &str = "// no comment";\nconst B: &str = "\n/* neither */";\n', 3),
        ('const A: &str = r#""/*"#;\nfn f() {}\n', 2),
        ("fn f<'a>(quote: char) -> bool { quote == '\"' }\n// why\n", 1),
        ("fn f() -> u8 { b'\\'' } /*\n*/\nfn g<'a, 'b>(_: &'a str) {}\n", 2),
        ('fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { h("}"); }\n}\nfn i() {}\n', 2),
        ("#[cfg(test)]\nuse a::{\n    b,\n};\nfn f() {}\n", 1),
        ("#[cfg(test)]\n#[allow(dead_code)]\nfn f() -> [u8; 2] {\n    [1, 2]\n}\nfn g() {}\n", 1),
        ('#[cfg(all(test, feature = "a"))]\nmod a {}\n#[cfg(feature = "a")]\nmod b {}\n', 2),
        ("struct A {\n    #[cfg(test)]\n    b: u8,\n    c: u8,\n}\n", 3),
    ],
)
def test_lines_of_a_source(source: str, lines: int) -> None:
    assert count_code.count({"src/lib.rs": source}) == {"src/lib.rs": lines}


def test_a_module_of_tests_does_not_count_wherever_its_files_are() -> None:
    sources = {
        "src/lib.rs": "mod a;\nmod b;\n#[cfg(test)]\npub(crate) mod fake;\n",
        "src/fake.rs": "fn f() {}\n",
        "src/a.rs": "#[cfg(test)]\nmod tests;\n",
        "src/a/tests.rs": "mod more;\n",
        "src/a/tests/more.rs": "fn f() {}\n",
        "src/b/mod.rs": "#[cfg(test)]\nmod tests;\nmod fake;\n",
        "src/b/tests/mod.rs": "fn f() {}\n",
        "src/b/fake.rs": "fn f() {}\n",
    }
    expected = {"src/lib.rs": 2, "src/a.rs": 0, "src/b/mod.rs": 1, "src/b/fake.rs": 1}
    assert count_code.count(sources) == expected
