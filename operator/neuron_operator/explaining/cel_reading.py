"""Reads the CEL selectors that people write for devices, without being an interpreter of CEL.

A conjunction of comparisons of attributes is read: AWS's samples and our own DeviceClasses are of that form. Anything
else is ``None``, not known: false by one part that could be read is false for sure, as CEL's ``&&`` has it, and true
needs all of them. There are CEL libraries for Python; none has the functions that Kubernetes adds, so the answer
for the rest would not be more sure than this.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Any, TypeAlias

Scalar: TypeAlias = str | int | bool

_TEXT = r"""(?:"[^"\\]*"|'[^'\\]*')"""
_ATTRIBUTE = re.compile(
    rf"""^device\.attributes\[\s*(?P<domain>{_TEXT})\s*\](?:\.(?P<name>[A-Za-z_]\w*)
        |\.\?(?P<optional>[A-Za-z_]\w*)\.orValue\(\s*(?P<default>{_TEXT}|-?\d+|true|false)\s*\))(?P<rest>.*)$""",
    re.VERBOSE | re.DOTALL,
)
_DRIVER = re.compile(r"^device\.driver(?P<rest>.*)$", re.DOTALL)
_LITERAL = rf"(?:{_TEXT}|-?\d+|true|false)"
_COMPARISON = re.compile(rf"^\s*(?:%\s*(?P<modulo>\d+)\s*)?(?P<sign>==|!=|<=|>=|<|>)\s*(?P<value>{_LITERAL})\s*$")
_MEMBER = re.compile(rf"^\s*in\s*\[\s*(?P<values>{_LITERAL}(?:\s*,\s*{_LITERAL})*)\s*\]\s*$")
_METHOD = re.compile(rf"^\.(?P<method>startsWith|endsWith|contains)\(\s*(?P<value>{_TEXT})\s*\)\s*$")
_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


@dataclass(frozen=True, slots=True)
class Part:
    """A comparison in a conjunction."""

    text: str
    """As people would write it: the attribute without its domain, and what is asked of it."""
    attribute: str
    """Full name; empty: it is about the driver."""
    test: Callable[[Scalar], bool]
    default: Scalar | None = None

    def holds(self, driver: str, attribute: Callable[[str], Scalar | None]) -> bool:
        """Whether a device fulfils it."""
        value = self.value(attribute) if self.attribute else driver
        # CEL fails on an attribute that is not there: no device is chosen by it either way
        return value is not None and self.test(value)

    def value(self, attribute: Callable[[str], Scalar | None]) -> Scalar | None:
        """What a device has."""
        found = attribute(self.attribute)
        return self.default if found is None else found


@dataclass(frozen=True, slots=True)
class Selector:
    """A CEL expression, as far as it could be read."""

    expression: str
    parts: tuple[Part | None, ...]
    """Of the conjunction; None: not read."""

    @property
    def read(self) -> bool:
        """Whether all of it could be read."""
        return None not in self.parts

    def holds(self, driver: str, attribute: Callable[[str], Scalar | None]) -> bool | None:
        """Whether a device fulfils it; None: it depends on what could not be read."""
        if self.failed(driver, attribute):
            return False
        return True if self.read else None

    def failed(self, driver: str, attribute: Callable[[str], Scalar | None]) -> list[Part]:
        """The parts that a device does not fulfil, of those that were read."""
        return [part for part in self.parts if part is not None and not part.holds(driver, attribute)]


@lru_cache(maxsize=1024)
def selector(expression: str) -> Selector:
    """Read an expression."""
    return Selector(" ".join(expression.split()), tuple(_part(text) for text in _conjuncts(expression)))


def _conjuncts(expression: str) -> list[str]:
    """The parts between `&&` that stand outside of brackets and texts; one part where `||` or `?:` is in it."""
    parts, depth, start, quote = [], 0, 0, ""
    position = 0
    while position < len(expression):
        character = expression[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0 and expression.startswith("||", position):
            return [expression]  # binds less than `&&`: no part is one of a conjunction
        elif depth == 0 and character == "?" and expression[position - 1 : position] != ".":
            return [expression]
        elif depth == 0 and expression.startswith("&&", position):
            parts.append(expression[start:position])
            position += 1
            start = position + 1
        position += 1
    return [*parts, expression[start:]]


def _part(text: str) -> Part | None:
    text = text.strip()
    while text.startswith("(") and _closes_at_end(text):
        text = text[1:-1].strip()
    if found := _DRIVER.match(text):
        test = _test(found["rest"])
        return Part(f"driver{found['rest']}", "", test) if test else None
    if not (found := _ATTRIBUTE.match(text)):
        return None
    name = found["name"] or found["optional"]
    default = _value(found["default"]) if found["default"] else None
    test = _test(found["rest"])
    return Part(f"{name}{found['rest']}", f"{found['domain'][1:-1]}/{name}", test, default) if test else None


def _closes_at_end(text: str) -> bool:
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position == len(text) - 1
    return False


def _test(rest: str) -> Callable[[Scalar], bool] | None:
    """What is asked of a value, from what stands after it."""
    if found := _COMPARISON.match(rest):
        compare, wanted = _SIGNS[found["sign"]], _value(found["value"])
        modulo = int(found["modulo"]) if found["modulo"] else None
        return lambda value: _same_kind(value, wanted) and compare(_modulo(value, modulo), wanted)
    if found := _MEMBER.match(rest):
        values = [_value(text) for text in re.findall(_LITERAL, found["values"])]
        return lambda value: any(_same_kind(value, wanted) and value == wanted for wanted in values)
    if found := _METHOD.match(rest):
        method, text = found["method"], found["value"][1:-1]
        return lambda value: isinstance(value, str) and _METHODS[method](value, text)
    return None


_METHODS: Mapping[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
}


def _modulo(value: Any, modulo: int | None) -> Any:
    if not modulo:
        return value
    # CEL's remainder has the sign of the dividend
    return abs(value) % modulo * (1 if value >= 0 else -1)


def _same_kind(value: Scalar, other: Scalar) -> bool:
    return type(value) is type(other)


def _value(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    return text[1:-1] if text[0] in "\"'" else int(text)
