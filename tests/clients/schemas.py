"""Random JSON schemas of the kinds that `halo serve` can hold an answer to."""


def random_schema(draw, depth):
    kind = draw.randrange(10 if depth else 6)
    low = draw.randrange(-50, 50)
    if kind == 0:
        return {"type": "integer", "minimum": low, "maximum": low + draw.randrange(500)}
    if kind == 1:
        return {"type": "number", "exclusiveMinimum": low / 8, "maximum": low / 8 + 2}
    if kind == 2:
        least = draw.randrange(3)
        return {"type": "string", "minLength": least, "maxLength": least + draw.randrange(6)}
    if kind == 3:
        return {"enum": ["a/b", "c", 5, None, True]}
    if kind == 4:
        return {"type": "string", "pattern": "^[a-z]{1,4}-[0-9]+$", "title": "a code"}
    if kind == 5:
        return {"type": ["boolean", "null"]}
    if kind < 8:
        names = [f"p{i}" for i in range(draw.randrange(1, 4))]
        return {
            "type": "object",
            "properties": {name: random_schema(draw, depth - 1) for name in names},
            "required": [name for name in names if draw.randrange(3)],
            "additionalProperties": False,
        }
    if kind == 8:
        return {"type": "array", "items": random_schema(draw, depth - 1), "maxItems": draw.randrange(1, 4)}
    return {"anyOf": [random_schema(draw, depth - 1) for _ in range(2)]}
