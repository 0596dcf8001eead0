#!/usr/bin/env bash
# openfeature-flagd-core 2.0.0 (PyPI), Python 3.11, Linux x86-64.
#
# A document with an evaluator whose JSON has an escape cannot be read: a text that is not ASCII, a quote or a backslash in one of
# `$evaluators`, used or not, ends in re.error, and no flag of the document is there. The evaluator is put into the document as the
# replacement of re.sub, where a backslash means something.
#
# Seen: ASCII read, ż error: bad escape \u at position 23
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check openfeature-flagd-core==2.0.0
cat > try.py <<'END'
import re

from openfeature.contrib.tools.flagd.core import FlagdCore


def read(text):
    flag = {"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [{"$ref": "named"}, "a"]}}
    try:
        FlagdCore().set_flags({"$evaluators": {"named": {"==": [{"var": "x"}, text]}}, "flags": {"f": flag}})
    except re.error as error:
        return f"error: {error}"
    return "read"


print(f"ASCII {read('z')}, ż {read('ż')}")
END
seen=$(venv/bin/python try.py)
echo "$seen"
[[ $seen == 'ASCII read, ż error: bad escape \u at position '* ]] || {
  echo 'changed' >&2
  exit 1
}
