#!/usr/bin/env python3
"""Writes jinja_cases.json: templates, variables and what Jinja makes of them, in the environment in
which transformers renders chat templates. Needs jinja2 (3.1.6 made the file that is kept).

A case has "expected", the text, or null where Jinja raises. A case with "refused" is one that we
refuse though Jinja renders it: words of our message. `templates` are rendered with `variables`;
`chats` are the templates of test_templates/ with `conversations` and `switches`.
"""
import json
import pathlib

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jinja_expressions import ERRORS, EXPRESSIONS, REFUSED


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


VARIABLES = {
    "s": "Hello World",
    "t": "  one two\tthree \n",
    "u": "ähnlich Straße ΟΔΟΣ 中文 👍",
    "m": "<think>\nwhy\n</think>\n\nSo.",
    "e": "",
    "n": 7,
    "z": 0,
    "f": 2.5,
    "yes": True,
    "no": False,
    "nil": None,
    "xs": [3, 1, 2],
    "ys": ["b", "A", "c", "a", "B"],
    "d": {"role": "user", "content": "Hi", "b": 1, "A": 2},
    "ms": [
        {"role": "system", "content": "Be brief.", "n": 3},
        {"role": "user", "content": "Hi", "n": 1},
        {"role": "assistant", "content": None, "n": 2, "tool_calls": [{"id": "x"}]},
        {"role": "user", "content": ["a", {"type": "text"}]},
    ],
    "nested": {"a": {"b": [{"c": "deep"}]}, "0": "zero"},
    "mixed": [1, 2.0, True, None, "x", [1], {"k": "v"}, "it's", 'say "hi"', "both ' \"", "\n\t\\"],
    "numbers": [0, -1, 1.0, 1e16, 1e-5, 123456789.125, 0.1, -0.0, 1e18, 5e-324],
}

TEMPLATES = r"""
plain text
====
{{ s }} and {{ n }}{{ nothing }}!
====
a
  {% if yes %}
  b
  {% endif %}
c
====
a {% if yes %} b {% endif %} c
====
a
  {%- if yes -%}
  b
  {%- endif -%}
c
====
a
  {%+ if yes %}
  b
  {%+ endif +%}
c
====
  {{- s -}}
  x {{+ n }} y
  {{ n -}}

z
====
a{# comment #}b
  {# on its own line #}
c {#- eats -#} d
 {#+ keeps +#}
e{##}f{#-#} g
====
{% raw %}{{ not }} {% rendered %}{% endraw %}!
 {%- raw -%}  {{ x }}  {%- endraw -%} .
  {% raw %}
 y {# z #}
  {% endraw %}
end
====
{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %}{% if no %}a{% elif no %}b{% else %}c{% endif %}{% if no %}x{% endif %}
====
{% if xs and d.role == 'user' or nothing %}t{% endif %}{% if not (xs and nothing) %}u{% endif %}
====
{% for x in xs %}{{ x }},{% endfor %}{% for x in [] %}x{% else %}none{% endfor %}{% for x in nothing %}x{% else %}gone{% endfor %}
====
{% for x in xs %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}/{{ loop.previtem }}/{{ loop.nextitem }}/{{ loop.depth }}/{{ loop.depth0 }};{% endfor %}
====
{% for x in xs %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}
====
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }} {% endfor %}{% for c in 'äb' %}[{{ c }}]{% endfor %}
====
{% for (a, b), c in [((1, 2), 3)] %}{{ a + b + c }}{% endfor %}{% for (a,) in [[1], [2]] %}{{ a }}{% endfor %}
====
{% for m in ms if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{{ m.content }}{% else %}none{% endfor %}
====
{% for m in ms if m.role == 'nobody' %}x{% else %}none{% endfor %}
====
{% set ns = namespace(stop=false) %}{% for x in [1, 2, 3, 4] if not ns.stop %}{{ x }}{% if x == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}
====
{% set ns = namespace(stop=false) %}{% for x in [1, 2, 3, 4] if not ns.stop %}{{ x }}{{ loop.last }}{% if x == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}
====
{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}
====
{% for x in xs %}{% break %}{% else %}else after break{% endfor %}{% for x in xs %}{% continue %}{% else %}else after continue{% endfor %}
====
{% for x in xs %}{% for y in xs %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{{ loop.index }};{% endfor %}
====
{% for x in [1, [2, [3, 4]], 5] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}
====
{% for x in [] recursive %}{{ x }}{% else %}empty{% endfor %}
====
{% set x = 1 %}{% for i in xs %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}
====
{% set ns = namespace(x=1, l=[]) %}{% for i in xs %}{% set ns.x = ns.x + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.x }} {{ ns.l }}
====
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d2) = [3, 4] %}{{ c }}{{ d2 }}{% set t2 = 1, 2 %}{{ t2 }}{% set v = 'a' if yes else 'b' %}{{ v }}
====
{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}
====
{% set x %}  block {{ n }} {% set y = 5 %}{{ y }}{% endset %}[{{ x }}]{{ y is defined }}{% set z2 | upper | trim %} abc {% endset %}[{{ z2 }}]
====
{% if yes %}{% set x = 1 %}{% endif %}{{ x }}{% if no %}{% set q = 1 %}{% endif %}{{ q is defined }}
====
{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}{{ m(1, c=9) }}
====
{% macro m() %}{{ varargs }} {{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}
====
{% macro m(x) %}{% if x > 0 %}{{ x }} {{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(4) }}
====
{% macro wrap(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call wrap('b') %}in {{ n }}{% endcall %}{% macro each(l) %}{% for x in l %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) each(xs) %}{{ i }}:{{ x }} {% endcall %}
====
{% macro m() %}{{ later }}{% endmacro %}{% set later = 'now' %}{{ m() }}{% set later = 'then' %}{{ m() }}
====
{% for i in xs %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}
====
{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}
====
{% macro m(x) %}  {{ x }}  {% endmacro %}[{{ m('y') | trim }}]{{ m('z') is string }}{{ 'z' in m('z') }}
====
{% filter upper %}abc {{ s }}{% endfilter %}{% filter replace('a', 'b') | trim %} aa {% endfilter %}
====
{% with a = 1, b = a %}{{ a }}{{ b is defined }}{% endwith %}{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}
====
{% print s, n %}
====
{% for m in ms %}{% generation %}{{ m.role }}{% set inside = 1 %}{% endgeneration %}{{ inside is defined }}{% endfor %}
====
{%- for m in ms -%}
    {%- if loop.first and m['role'] == 'system' -%}
        {{ '<<SYS>>' + m['content'] | trim + '<</SYS>>' }}
    {%- elif m.content is string -%}
        {{ '[' ~ m.role ~ '] ' ~ m.content }}
    {%- elif m.content is iterable and m.content is not none -%}
        {%- for p in m.content -%}
            {{- p.type if p is mapping else p -}}
        {%- endfor -%}
    {%- endif -%}
{%- endfor -%}
====
{{ {'a': 1}['a'] }}{{ "}}" }}{{ '%}' }}{{ {'b': {'c': 2}}.b.c }}{{ "{{" }}{# }} #}
====
{{ s
   | upper
   ~ '!' }}
====
{% if 'a' in 'abc' and
      'd' not in 'abc' %}multi
line{% endif %}

====
{{ 'line1
line2' }}
====
trailing newlines


====
{{ xs|length - 1 }}{{ xs|length-1 }}{{ 2 if xs|length > 2 else 3 }}{{ not xs|length == 3 }}{{ (xs|length)|string + 'x' }}
====
{% set g = xs | map('string') %}{{ g | list }}{{ g | list }}{{ g is iterable }}{{ g is sequence }}
====
{% set g = xs | map('string') %}{% for x in g %}{{ x }}{{ loop.last }}{% endfor %}{{ g | list }}
====
{% set m2 = ms | selectattr('role', 'equalto', 'user') | list %}{% for m in m2[::-1] %}{{ m.n }}{{ loop.index0 }}{% endfor %}
====
{{ "a" if nothing }}{{ nothing.__class__ if false }}{{ (nothing or d).role }}
====
{% set items = d.items() %}{% for k, v in items | sort(attribute=0) if k != 'A' %}{{ k }}{% endfor %}{% for k, v in d | dictsort %}{{ k }}{% endfor %}
====
{% for x in range(3) %}{% if loop.index is even %}e{% else %}o{% endif %}{% endfor %}{% for _ in range(0) %}{% else %}z{% endfor %}
====
{% for x in xs %}{% set y = x %}{% if loop.last %}{{ y }}{% endif %}{% endfor %}{{ y is defined }}{{ x is defined }}
====
{%if yes%}tight{%endif%}{%-for x in xs-%}{{x}}{%-endfor-%}
====
{% if yes: %}colon{% endif %}{% for x in xs: %}{{ x }}{% endfor %}
====
{{ [1,2] is sequence and 1 is number }}
====
{{ 'a' is string is defined if false }}
====
{% for a, in [[1]] %}{{ a }}{% endfor %}
====
{% set x = {'a': [1, {'b': 'c'}]} %}{{ x.a[1].b }}{{ x['a'][0] }}{{ x.a.1.b }}
====
{{ {'items': 5}.items is number }}{{ {'items': 5}['items'] }}
====
{% set content = "a" %}{% for m in [1] %}{% set content = content + "b" %}{{ content }}{% endfor %}{{ content }}
====
{{ ' ' ~ '' ~ none }}{{ (1, 'a') }}{{ [true, none] }}{{ {'a': none} }}{{ 'é\n' }}{{ ['é\n'] }}
====
{% for a in xs %}{% for b in xs if b != a %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}
====
{% if d.content is defined and d.content is not none and d.content is string %}{{ d.content }}{% endif %}{% if d.tool_calls is not defined or not d.tool_calls %}no calls{% endif %}
====
{{ raise_exception('stop ' ~ n) if no else 'go' }}
====
{{ raise_exception('stop ' ~ n) }}
====
{% set x.y = 1 %}
====
{% set d.y = 1 %}
====
{% for a, b in [[1]] %}{% endfor %}
====
{% for x in n %}{% endfor %}
====
{% if yes %}
====
{% endif %}
====
{% for x in xs %}{% endif %}
====
{% unknown %}
====
{{ s
====
{% if s
====
{# open
====
{% raw %} open
====
{{ s }
====
{% break %}
====
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
====
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
====
{% macro m(a=1, b) %}{% endmacro %}
====
{% set true = 1 %}
====
{% set 1 = 2 %}
====
{% for loop in xs %}{{ loop }}{% endfor %}
====
{{ (1, 2 }}
====
{{ 1 2 }}
====
{{ }}
====
{% if %}{% endif %}
====
{{ d.items(1) }}
====
{% call n %}{% endcall %}
====
{% if no %}{{ s | unknown_filter }}{% endif %}fine
====
{% if yes %}{{ s | unknown_filter }}{% endif %}
""".strip("\n").split("\n====\n")


def family_templates():
    """Templates of our own in the manner of the families whose models we read."""
    folder = pathlib.Path(__file__).parent / "test_templates"
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja"))}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a \"city\" — now",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name"},
                    "days": {"type": ["integer", "null"], "enum": [1, 2.5]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]

CALL = {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}
CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hello"}],
    "system": [{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "2+2?"}],
    "turns": [
        {"role": "system", "content": "Poet"},
        {"role": "user", "content": "Hi\nthere"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello! "},
        {"role": "user", "content": " spaced "},
        {"role": "assistant", "content": "Bye", "reasoning_content": "\nwell\n"},
    ],
    "tool": [
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "id": "abcdef123", "function": CALL}]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "12 C"},
        {"role": "assistant", "content": "12 degrees"},
        {"role": "user", "content": "Thanks"},
    ],
    "two calls": [
        {"role": "user", "content": "Both"},
        {"role": "assistant", "content": "Looking", "tool_calls": [
            {"id": "000000001", "function": {"name": "now", "arguments": "{}"}},
            {"id": "000000002", "function": CALL}]},
        {"role": "tool", "tool_call_id": "000000001", "content": {"time": [1, None, True]}},
        {"role": "tool", "tool_call_id": "000000002", "content": "rain"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "Look "}, {"type": "image"},
                                     {"type": "text", "text": "here"}]},
    ],
    "wrong order": [{"role": "assistant", "content": "I"}, {"role": "assistant", "content": "II"}],
    "markup": [{"role": "user", "content": "{{ x }} <|im_end|> {% y %} & <b> 👍 \\n"}],
    "empty": [],
}

CHAT_VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
SWITCHES = [
    {},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "enable_thinking": False},
    {"add_generation_prompt": True, "enable_thinking": True, "tools": TOOLS},
    {"tools": TOOLS, "date_string": "26 Jul 2024", "tools_in_user_message": False},
    {"documents": [{"title": "T", "text": "body"}], "custom_tools": TOOLS},
]


def rendered(env, template, variables):
    """The text, or None where Jinja raises, which it does with every kind of exception."""
    try:
        return env.from_string(template).render(**variables)
    except Exception:
        return None


def templates(env):
    for line in EXPRESSIONS.strip().split("\n"):
        template = "{{ [" + line + "] }}"
        expected = rendered(env, template, VARIABLES)
        if expected is None:
            raise SystemExit(f"raises: {line}")
        yield {"template": template, "expected": expected}
    for line in ERRORS:
        template = "{{ " + line + " }}"
        if rendered(env, template, VARIABLES) is not None:
            raise SystemExit(f"does not raise: {line}")
        yield {"template": template, "expected": None}
    for template in TEMPLATES:
        yield {"template": template, "expected": rendered(env, template, VARIABLES)}
    for template, refused in REFUSED:
        expected = rendered(env, template, VARIABLES)
        if expected is None:
            raise SystemExit(f"raises: {template}")
        yield {"template": template, "expected": "", "refused": refused}


def chats(env):
    for name, template in family_templates().items():
        for conversation, messages in CONVERSATIONS.items():
            for i, switches in enumerate(SWITCHES):
                variables = {
                    "messages": messages,
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": False,
                    **CHAT_VARIABLES,
                    **switches,
                }
                expected = rendered(env, template, variables)
                yield {"template": name, "messages": conversation, "switches": i, "expected": expected}


def main():
    env = environment()
    sections = {
        "variables": VARIABLES,
        "chat_variables": CHAT_VARIABLES,
        "conversations": CONVERSATIONS,
        "switches": SWITCHES,
    }
    lists = {"templates": list(templates(env)), "chats": list(chats(env))}
    with pathlib.Path(__file__).with_name("jinja_cases.json").open("w") as file:
        file.write("{\n")
        for name, section in sections.items():
            file.write(f'"{name}": {json.dumps(section, ensure_ascii=False)},\n')
        for name, cases in lists.items():
            lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
            file.write(f'"{name}": [\n{lines}\n]' + (",\n" if name == "templates" else "\n}\n"))
            raising = sum(case["expected"] is None for case in cases)
            print(f"{len(cases)} {name}, {raising} of them raise")


if __name__ == "__main__":
    main()
