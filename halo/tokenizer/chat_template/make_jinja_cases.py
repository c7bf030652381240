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

# Each is printed inside a list, so that its type shows.
EXPRESSIONS = """
1 + 2 * 3 - 4 / 2
7 // 2, -7 // 2, 7 // -2, 7 % 3, -7 % 3, 7 % -3, 7.5 // 2, -7.5 % 2, 7.5 % -2
2 ** 10, 2 ** -1, -2 ** 2, 2 ** 3 ** 2, 2.0 ** 0.5, 4 ** 0.5
1 / 3, 10 / 5, 1e3, 1.5e-7, 0x1F, 0o17, 0b101, 1_000, 1_0.5
true + 1, true * 3, -true, +false, yes + yes
'a' 'b' "c"
"a\\tb\\n\\x41\\u00e9\\U0001F44D\\101\\q\\'"
'a' + 'b', 'ab' * 3, 3 * 'ab', 'ab' * 0, 'ab' * -1
[1] + [2], (1,) + (2,), [1, 2] * 2, 2 * (1,)
1 ~ 2 ~ 'x' ~ none ~ true ~ [1] ~ undefined_name
'a' ~ 1 + 'b'
1 < 2 < 3, 1 < 2 > 3, 1 == 1.0 == true, 'a' < 'b', 'Z' < 'a', [1, 2] < [1, 3], (1,) < (1, 2)
1 == '1', none == false, [] == (), [1] == [1.0], {'a': 1} == {'a': 1.0}, {'a': 1, 'b': 2} == {'b': 2, 'a': 1}
'a' != 'b', 1 != 1, not 1 == 2, not true == false
'ell' in s, '' in s, 'x' not in s, 3 in xs, '3' in xs, 'role' in d, 'user' in d, 1.0 in xs
1 in (1, 2), none in [none], [1] in [[1]], 'a' in {}, 1 in range(3)
yes and no, yes or no, 0 or 'x', '' or [] or 'last', 1 and 2, 1 and '' and 3, nil or 5
not yes, not not yes, not '', not [], not {}, not 0.0, not 'x'
'a' if yes else 'b', 'a' if no else 'b', 'a' if no, ('a' if no else 'b' if no else 'c')
('x' if no) is defined
nothing is defined, nothing is undefined, d.nothing is defined, d.role is defined, d['nope'] is undefined
nothing or 'default', nothing is none, nothing == nothing, nothing == none, nothing | length, nothing | list
s is string, n is string, n is number, f is number, yes is number, nil is none, nil is not none
d is mapping, xs is mapping, xs is sequence, s is sequence, d is sequence, n is sequence, nothing is sequence
xs is iterable, s is iterable, n is iterable, d is iterable, nil is iterable, nothing is iterable
yes is boolean, n is boolean, n is integer, yes is integer, f is integer, f is float, n is float
yes is true, yes is false, no is false, 1 is true, n is odd, n is even, z is even
n is divisibleby 7, n is divisibleby(2), n is eq 7, n is equalto(7), n == 7, n is ne 3, n is gt 3, n is lessthan 9
n is ge 7, n is le 6, n is lt 7, n is in [1, 7], 'a' is in 'abc', n is not in [1], s is lower, 'abc' is lower, 'ABC' is upper
yes is sameas true, no is sameas(false), nil is sameas none, range is callable, s is callable
s is defined and s is string and not (n is string)
xs[0], xs[-1], xs[3], xs[-4], xs[true], xs['0'], xs[1.0], d['role'], d.role, d[1], s[0], s[-1], s[20]
xs[1:], xs[:-1], xs[::-1], xs[::2], xs[-2:], xs[5:], xs[1:1], xs[2:0:-1], xs[:100], xs[-100:2], xs[none:2]
s[1:4], s[::-1], s[-5:], s[:0], s[::3], s[10:2:-2], u[1:9], u[-2:], u[::-1], u[0], u[-1], u | length
n[0] is undefined, s.nope is undefined, xs.nope is undefined
nested.a.b[0].c, nested['a']['b'][-1]['c'], nested.a.b.0.c, nested['0'], nested.0, ms[0].role, ms.0.role
ms[2].tool_calls[0].id, ms[2].content is none, ms[1].tool_calls is defined, ms[3].content[1].type
d.items() | list, d.keys() | list, d.values() | list, d.items(), d.keys(), d.values(), d | list
d.get('role'), d.get('nope'), d.get('nope', 'x'), d.get('nope', none), d.copy()
d.items is defined, d.items is callable, d.keys is string, d['items'] is defined, d.update is defined, d.clear is callable
s.split(), s.split('o'), s.split('o', 1), s.split(' ', maxsplit=0), t.split(), t.split(none, 1), e.split(), e.split('x'), ' a  b '.split(' ')
s.rsplit('o', 1), t.rsplit(none, 1), 'a,b,,c'.rsplit(','), 'aaa'.split('aa'), 'aaa'.rsplit('aa'), s.rsplit(), '  a b '.rsplit(none, 1), '  a b '.split(none, 0)
m.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n'), m.split('</think>')[-1].lstrip('\\n')
t.strip(), t.lstrip(), t.rstrip(), 'xxaxx'.strip('x'), 'xyaxy'.strip('yx'), 'abc'.lstrip('ba'), 'abc'.rstrip(none), 'éaé'.strip('é'), '\u00a0a\u2003'.strip()
s.startswith('He'), s.startswith('e'), s.startswith(('x', 'H')), s.endswith('ld'), s.endswith(('ld', 'x')), s.startswith('llo', 2), s.startswith(''), s.endswith('lo', 0, 5)
s.upper(), s.lower(), s.title(), s.capitalize(), s.swapcase(), u.upper(), u.lower(), 'they\\'re bill\\'s'.title(), 'ΑΣ ΑΣΑ Σ'.lower(), 'ß ŉ ǰ ﬁ'.upper(), 'ǆ'.title()
s.replace('o', '0'), s.replace('o', '0', 1), s.replace('', '-'), s.replace('xyz', ''), 'aaa'.replace('aa', 'b'), 'äb'.replace('', '|', 2), s.replace('l', '')
s.find('o'), s.find('z'), s.rfind('o'), s.index('W'), s.rindex('o'), s.count('l'), s.count(''), s.find('o', 5), s.find('o', -3), u.find('中'), u.rfind(' '), 'aaaa'.count('aa'), s.find('', 11), s.find('', 12)
'-'.join(ys), ''.join(['a']), ','.join([]), ', '.join(d), '-'.join('abc')
s.partition(' '), s.partition('x'), s.rpartition('o'), s.removeprefix('Hello '), s.removesuffix('x'), 'a\\nb\\r\\nc\\x0bd\\u2028e'.splitlines(), 'a\\nb\\n'.splitlines(true), ''.splitlines()
'abc'.center(8), 'abc'.center(9, '*'), 'abcd'.center(7), 'abc'.ljust(5) ~ '|', 'abc'.rjust(5, '.'), '42'.zfill(5), '-42'.zfill(5), 'abc'.center(2)
'abc'.isalpha(), 'ab1'.isalnum(), '12'.isdigit(), '1.2'.isdigit(), '²'.isdigit(), '²'.isdecimal(), '½'.isnumeric(), ' \\n'.isspace(), ''.isspace(), 'abc'.islower(), 'Abc'.islower(), '1A'.isupper(), 'é'.isascii(), ''.isalpha(), 'é中'.isalpha()
'ABC'.casefold(), xs.index(1), xs.count(3), (1, 1).count(1), xs.copy(), range(3).index(2)
s | upper, s | lower, s | title, s | capitalize, 'foo-bar baz(qux'|title, n | upper, nil | lower, 'a  b'|title, 'straße'|title
t | trim, 'xxaxx' | trim('x'), n | trim, s | length, xs | length, d | count, [] | length
xs | first, xs | last, [] | first is undefined, e | last is undefined, s | first, s | last, d | first, d | last, u | last, range(5) | last, nothing | first is undefined, nothing | last is undefined
xs | join, xs | join(', '), ys | join('-'), ms | join('|', attribute='role'), [1, none, true] | join(' '), d | join(','), s | join('.'), xs | join(1)
xs | list, s | list, d | list, (1, 2) | list, range(3) | list, range(5, 0, -2) | list, range(2, 5) | list, range(0) | list
xs | sort, ys | sort, ys | sort(case_sensitive=true), xs | sort(reverse=true), ms[:3] | sort(attribute='n') | map(attribute='role') | list, ys | sort(true), s | sort | join
ys | unique | list, ys | unique(true) | list, ms | unique(attribute='role') | map(attribute='role') | list, [1, 1.0, true, 2] | unique | list
xs | reverse | list, s | reverse, (1, 2) | reverse | list, d | reverse | list, nothing | reverse | list, (xs | map('string') | list) | reverse | list
xs | min, xs | max, ys | min, ys | max, ys | min(case_sensitive=true), [] | min is undefined, xs | sum, [1.5, 2] | sum, [] | sum, xs | sum(start=10), ms[:3] | sum(attribute='n'), ms[:3] | max(attribute='n') == ms[0]
ms | map(attribute='role') | list, ms | map(attribute='n', default=0) | list, ys | map('upper') | list, xs | map('string') | join, ys | map('replace', 'a', 'x') | list, [] | map('upper') | list, nothing | map('upper') | list, ms | map(attribute='content.1.type', default='none') | list
ms | selectattr('role', 'equalto', 'user') | list | length, ms | selectattr('role', '==', 'user') | map(attribute='n', default=9) | list, ms | selectattr('tool_calls', 'defined') | list | length, ms | selectattr('content') | list | length, ms | rejectattr('role', 'in', ['user', 'system']) | map(attribute='role') | list, ms | rejectattr('content', 'string') | list | length, ms | selectattr('n', 'defined') | selectattr('n', 'gt', 1) | list | length
xs | select('gt', 1) | list, xs | reject('odd') | list, [0, 1, '', 'a', none] | select | list, [0, 1, '', 'a', none] | reject | list, mixed | select('string') | list, xs | select('divisibleby', 2) | list
nothing | default('x'), nil | default('x'), nil | default('x', true), e | default('x', boolean=true), e | d('x'), nothing | default, d.nope | default({}), n | default(1)
d | items | list, nothing | items | list, d | dictsort, d | dictsort(true), d | dictsort(reverse=true), {'x': 2, 'y': 1} | dictsort(by='value'), {'x': 'b', 'y': 'A'} | dictsort(false, 'value', true), {'x': 'b', 'y': 'A'} | dictsort(true, 'value')
{'b': 1, 'a': {'c': []}} | dictsort
'3' | int, '3.7' | int, 'x' | int, 'x' | int(5), 3.9 | int, -3.9 | int, true | int, ' 42 ' | int, '1_000' | int, '0x1f' | int(base=16), '1f' | int(0, 16), none | int, [] | int(1), '' | int, '-5' | int, '+5' | int, '1e3' | int, 'nan' | int(2), '中' | int(3), '1中' | int
'3.5' | float, 'x' | float, 3 | float, '1e3' | float, 'x' | float(1.5), none | float, '-.5' | float, '5.' | float, 'inf' | float, '1_0.5' | float, '1e999' | float, '1e-999' | float, 'é' | float
n | string, nil | string, xs | string, f | string, true | string, s | safe | length, s | safe | upper, (s | safe) == s
-5 | abs, 5 | abs, -2.5 | abs, 2.5 | round, 3.5 | round, 2.567 | round(2), 2.567 | round(1, 'floor'), 2.1 | round(method='ceil'), 7 | round, -2.5 | round, 0.125 | round(2), 1e300 | round(3), 2.675 | round(2)
'a\\nb\\n\\nc' | indent, 'a\\nb' | indent(2), 'a\\nb' | indent(2, true), 'a\\n\\nb' | indent(2, blank=true), 'a\\nb' | indent('>> '), 'a\\n' | indent, '' | indent(first=true), 'a\\nb' | indent(width=1, first=true)
s | replace('o', '0'), s | replace('o', '0', 1), n | replace('7', 'x'), 'aXbX' | replace('X', ''), xs | replace('[', '(')
'%s is %d and %5.2f%%' % ('x', 3, 2.5), '%s' % 'x', '%r' % 'x', '%(a)s-%(b)d' % {'a': 1, 'b': 2}, '%05d|%-5s|%5s|%+d' % (42, 'ab', 'cd', 7), '%s' % [1], '%i' % 3.9, '%.2s' % 'abc', '%s' % none, '%%' % (), '% d' % 5, '%05.1f' % -2.25
'%s %s' | format('a', 1), '%(x)s' | format(x=2), '{} {}'.format(1, 'a'), '{1} {0}'.format('a', 'b'), '{x}'.format(x=3), '{{}}'.format(), 'plain'.format()
'a b_c d1' | wordcount, [1, 2, 3, 4, 5] | batch(2) | list, [1, 2, 3] | batch(2, 0) | list, [1, 2, 3, 4, 5] | slice(3) | list, [1, 2] | slice(3, 'x') | list, 'ab' | center(6)
'<a href="x">&\\'' | escape, '<b>' | e | e, ('<b>' | safe) ~ '<i>', '<b>' | forceescape, ('a' | safe) + 'b', 'x' | escape is escaped, 'x' is escaped
d | tojson, xs | tojson, mixed | tojson, numbers | tojson, u | tojson, nil | tojson, yes | tojson, s | tojson, (1, 2) | tojson, {} | tojson, [] | tojson
d | tojson(indent=2), nested | tojson(indent=4), ms | tojson(indent=1), {} | tojson(indent=2), [[], {}] | tojson(indent=2), xs | tojson(indent=0), d | tojson(indent='--')
d | tojson(separators=(',', ':')), d | tojson(sort_keys=true), u | tojson(ensure_ascii=true), d | tojson(true, none, [', ', '='], true), d | tojson(indent=2, separators=(', ', ': ')), '\\x7f\\x01\\u2028/' | tojson, '\\x7f' | tojson(ensure_ascii=true)
{1: 'a', 2.5: 'b', true: 'c', none: 'd'} | tojson, {'a': 1, 'a': 2}, {1: 'a', 1.0: 'b', true: 'c'}, {'x': [1, (2,)]}, {(1, 2): 3}
mixed, numbers, u, '\\x00\\x1f\\x7f\\x85\\u200b\\U0010ffff', nil, (1,), (), [], {}, [nothing], [e]
1e22, 1e15, 123456789012345680.0, 0.00001, 0.0001, 1.0, 100.0, 1/3, 2**53, -0.0, 1e16, 1.5e300 * 1e10
[1, 2, 3,], (1, 2,), {'a': 1,}, [], ((1)), (1,)[0]
dict(a=1), dict(d, x=1) == d, dict([('a', 1)]), dict({'a': 1}, a=2), dict()
d | attr('role') is undefined, d | attr('items') is defined
[range(3) | length, range(3)[1], range(10)[2:5] | list, 2 in range(3), range(3) == range(0, 3)]
namespace(a=1).a, namespace({'a': 2}).a, namespace(a=1).b is undefined, namespace(a=1)['a']
(xs | map('abs'))|list|length, ((1, 2), (3, 4)) | map('first') | list, [[1, 2]] | map('last') | list, [d] | map(attribute='role') | first, [' a '] | map('trim') | list
n if n is defined else 0, (n, f)[0], [n][0:1], (xs)[0], -n, +n, - n ** 2, -(n), not n in xs, not (n in xs), n is not string
xs[0] if xs else none, xs[n - 7], s[n], d['ro' ~ 'le'], {'k': s}['k'], [s, t][0].split(' ')[1], 'a.b.c'.split('.')[-1].upper() ~ '!'
nothing ~ 'x', nothing | upper, nothing | trim, nothing | string, nothing | join, nothing | default(none)
loop is defined, caller is defined, varargs is undefined
"""

# Raise in Jinja, and so must here.
ERRORS = """
nothing.x
nothing['x']
nothing + 1
1 + nothing
nothing()
-nothing
nothing < 1
d.nope.x
xs.append(4)
d.update({})
d.pop('a')
1 + 'a'
'a' + 1
[1] + (1,)
'a' - 'b'
1 < 'a'
none < 1
1 / 0
1 // 0
1 % 0
0 ** -1
1 in 5
1 in s
nil[0].x
n()
s()
xs | upper | nofilter
xs is notest
xs | first(1)
s.split('')
s.index('z')
'%d' % 'x'
'%s %s' % ('a',)
'%s' % ('a', 'b')
raise_exception('no')
nothing | tojson
range | tojson
d.items() | tojson
xs[::0]
d[1:2]
n[1:]
nothing[1:]
xs['a':]
xs[1.0:]
{[1]: 2}
{}[[1]].x
nil | length
n | list
n | join
nil | sort
[1, 'a'] | sort
[none, 1] | min
range(1000000)
range(1, 2, 0)
range('a')
d | dictsort(by='x')
xs | map('upper') | last
'{} {}'.format(1)
namespace(1)
dict(1)
(1, 2
[1, 2
1 +
{'a': }
'abc
1 ! 2
a b
| upper
x is
x.
""".strip().split("\n")

# Jinja renders these; we refuse them, by these words.
REFUSED = [
    ("{{ range }}", "cannot be printed"),
    ("{{ d.items }}", "cannot be printed"),
    ("{{ xs | map('upper') }}", "cannot be printed"),
    ("{{ range(3) }}", "cannot be printed"),
    ("{{ s.encode }}", "'encode' of a str is not supported"),
    ("{{ s.istitle() }}", "'istitle' of a str is not supported"),
    ("{{ n.bit_length() }}", "'bit_length' of a int is not supported"),
    ("{{ s.__class__ }}", "unsafe"),
    ("{{ 2 ** 64 }}", "64 bits"),
    ("{{ 9223372036854775807 + 1 }}", "64 bits"),
    ("{{ 99999999999999999999 }}", "64 bits"),
    ("{{ ('<b>' | safe) + '<i>' }}", "escape it"),
    ("{{ '٣' | int }}", "other digits than 0 to 9"),
    ("{{ self }}", "'self' is not supported"),
    ("{{ lipsum }}", "'lipsum' is not supported"),
    ("{{ cycler('a').next() }}", "'cycler' is not supported"),
    ("{{ s | truncate(5) }}", "'truncate' is not supported"),
    ("{{ d | urlencode }}", "'urlencode' is not supported"),
    ("{{ '%x' % 255 }}", "'%x' is not supported"),
    ("{{ '{:>5}'.format(1) }}", "only {}, {0} and {name}"),
    ("{{ '\\N{BULLET}' }}", "'\\N' is not supported"),
    ("{{ '\\ud800' | length }}", "no character"),
    ("{{ 'ﬁ'.title() }}", "title case"),
    ("{{ 'É'.casefold() }}", "beyond ASCII"),
    ("{{ namespace(a=namespace()).a }}", "not supported"),
    ("{% block x %}a{% endblock %}", "'block' is not supported"),
    ("{% autoescape false %}a{% endautoescape %}", "'autoescape' is not supported"),
    ("{% set é = 1 %}", "unexpected 'é'"),
    ("{% set g = xs | map('string') %}{% for x in g %}{% break %}{% endfor %}{{ g | list }}", "broke off"),
]

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
