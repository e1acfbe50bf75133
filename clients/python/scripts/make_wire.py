#!/usr/bin/env python3
"""Generates src/zonewire/wire.py, the types of the wire, from docs/schema/zonewire.schema.json.

python3 scripts/make_wire.py           writes it
python3 scripts/make_wire.py --check   ends with 1 if the file differs from what would be written
"""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
SCHEMA = HERE.parent.parent / "docs/schema/zonewire.schema.json"
WIRE = HERE / "src/zonewire/wire.py"

Schema = dict[str, Any]

HEAD = '''"""What a Zonewire gateway and its clients exchange; the protocol says what it means.

Made by ``scripts/make_wire.py`` of the gateway's own schema: do not change it by hand. At run time all of
these are dictionaries, just as they were sent; fields, types of messages and codes that are not here may come
from a newer gateway, and fields that a publisher or a worker has added are there too.
"""

from decimal import Decimal
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict
'''


def name_of(ref: str) -> str:
    return ref.removeprefix("#/$defs/")


def quoted(text: str, indent: str) -> str:
    """A docstring."""
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    if text.endswith('"'):
        text += " "
    wrapped = textwrap.fill(
        " ".join(text.split()), 104 - len(indent), break_long_words=False, break_on_hyphens=False
    )
    lines = wrapped.split("\n")
    end = '"""' if len(lines) == 1 else f'\n{indent}"""'
    return f'{indent}"""' + f"\n{indent}".join(lines) + end


def digits(schema: Schema) -> bool:
    """Whether the schema is a number of any size, which keeps the digits that its publisher wrote."""
    return any(one.get("type") == "number" and "format" not in one for one in [schema, *schema.get("oneOf", [])])


def type_of(schema: Schema, number: str = "float") -> str:
    """The Python type of a schema: of a field, or of a definition."""
    if "$ref" in schema:
        return name_of(schema["$ref"])
    if "const" in schema:
        return f"Literal[{json.dumps(schema['const'])}]"
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return union([type_of(one, number) for one in schema[several]])
    if "type" not in schema:
        return "Any"  # whatever JSON can say
    kinds = schema["type"]
    if isinstance(kinds, list):
        return union([type_of({"type": kind}, number) for kind in kinds])
    if kinds == "array":
        return f"list[{type_of(schema['items'])}]"
    if kinds == "object":
        more = schema["additionalProperties"]
        return f"dict[str, {'Any' if more is True else type_of(more)}]"
    return {"string": "str", "integer": "int", "number": number, "boolean": "bool", "null": "None"}[kinds]


def union(types: list[str]) -> str:
    consts = [one[8:-1] for one in types if one.startswith("Literal[")]
    others = [one for one in types if not one.startswith("Literal[")]
    return " | ".join(([f"Literal[{', '.join(consts)}]"] if consts else []) + others)


def typed_dict(name: str, schema: Schema, tag: tuple[str, list[str]] | None = None, number: str = "float") -> str:
    lines = [f"class {name}(TypedDict):", quoted(schema.get("description", "."), "    "), ""]
    if tag:
        lines.append(f"    {tag[0]}: Literal[{', '.join(map(json.dumps, tag[1]))}]")
    required = schema.get("required", [])
    for field, one in schema.get("properties", {}).items():
        assert field.isidentifier() and not (tag and field == tag[0]), field
        kind = type_of(one, number if digits(one) else "float")
        lines.append(f"    {field}: {kind if field in required else f'NotRequired[{kind}]'}")
        if "description" in one:
            lines.append(quoted(one["description"], "    "))
    return "\n".join(lines)


def alias(name: str, schema: Schema, value: str) -> str:
    return f"{name}: TypeAlias = {value}\n{quoted(schema.get('description', '.'), '')}"


def spread(kinds: list[str]) -> str:
    """A long type, over several lines."""
    if len(kinds) == 1 and kinds[0].startswith("Literal["):
        return "Literal[\n    " + kinds[0][8:-1].replace(", ", ",\n    ") + ",\n]"
    return "(\n    " + "\n    | ".join(kinds) + "\n)"


def refs(schema: Any) -> list[str]:
    """The definitions that a schema refers to."""
    if isinstance(schema, list):
        return [name for one in schema for name in refs(one)]
    if not isinstance(schema, dict):
        return []
    own = [name_of(schema["$ref"])] if "$ref" in schema else []
    return own + [name for one in schema.values() for name in refs(one)]


def in_order(defs: dict[str, Schema]) -> list[str]:
    """The definitions, each after those that it refers to; a cycle would have no order."""
    done: list[str] = []
    under_way: list[str] = []

    def put(name: str) -> None:
        assert name not in under_way, f"{name} is made of itself"
        if name in done:
            return
        under_way.append(name)
        for other in refs(defs[name]):
            put(other)
        done.append(under_way.pop())

    for name in defs:
        put(name)
    return done


def tags_of(defs: dict[str, Schema]) -> dict[str, list[str]]:
    """The `type` of each definition that is one of several messages; it is given beside the reference."""
    tags: dict[str, list[str]] = {}
    for one in defs.values():
        for arm in arms_of(one):
            if "$ref" in arm and "properties" in arm:
                ((field, value),) = arm["properties"].items()
                assert field == "type", field
                values = tags.setdefault(name_of(arm["$ref"]), [])
                if value["const"] not in values:
                    values.append(value["const"])
    return tags


def arms_of(schema: Schema) -> list[Schema]:
    return [*schema.get("oneOf", []), *schema.get("anyOf", [])]


def variants(name: str, schema: Schema) -> dict[str, str]:
    """A type for each of several objects without names."""
    parts: dict[str, str] = {}
    for arm in arms_of(schema):
        fields = dict(arm["properties"])
        field = next(field for field, value in fields.items() if "const" in value)
        const = fields.pop(field)["const"]
        own = name + "".join(word.title() for word in const.split("_"))
        parts[own] = typed_dict(own, {**arm, "properties": fields}, (field, [const]))
    return {**parts, name: alias(name, schema, " | ".join(parts))}


def make(schema: Schema) -> str:
    defs: dict[str, Schema] = schema["$defs"]
    tags = tags_of(defs)
    parts: dict[str, str] = {}
    for name in in_order(defs):
        one = defs[name]
        arms = arms_of(one)
        if one.get("type") == "object" and "properties" in one:
            tag = ("type", tags[name]) if name in tags else None
            parts[name] = typed_dict(name, one, tag)
            decimals = [field for field, value in one["properties"].items() if digits(value)]
            if decimals:
                exact = f"As `{name}`, with the numbers of `{name.upper()}_DECIMALS` as they were written."
                parts[f"Decimal{name}"] = typed_dict(
                    f"Decimal{name}", {**one, "description": exact}, tag, "Decimal"
                )
                fields = ", ".join(map(json.dumps, decimals))
                parts[f"{name.upper()}_DECIMALS"] = f"{name.upper()}_DECIMALS = ({fields})"
        elif arms and all(arm.get("type") == "object" and "$ref" not in arm for arm in arms):
            parts |= variants(name, one)
        else:
            kinds = list(dict.fromkeys(type_of(one).split(" | ")))
            value = " | ".join(kinds)
            if len(name) + len(value) > 90:
                value = spread(kinds)
            parts[name] = alias(name, one, value)
    names = "".join(f'    "{name}",\n' for name in sorted(parts))
    return "\n\n\n".join([f"{HEAD}\n__all__ = [\n{names}]", *parts.values()]) + "\n"


def main() -> int:
    text = make(json.loads(SCHEMA.read_text()))
    if "--check" in sys.argv[1:]:
        if WIRE.read_text() == text:
            return 0
        print(f"{WIRE} is not what {SCHEMA} gives: python3 {Path(__file__).name}", file=sys.stderr)
        return 1
    WIRE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
