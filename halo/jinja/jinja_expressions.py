"""The expressions of make_jinja_cases.py: those with a value, those that Jinja refuses, and those that we refuse."""

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
