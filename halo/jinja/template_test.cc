#include "halo/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "halo/base/files.h"
#include "halo/base/json.h"
#include "tests/places.h"
#include "tests/testing.h"

namespace halo::jinja {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string render(const std::string& text, json::object variables = {},
                   const TemplateLimits& limits = {}) {
  variables["messages"] = json::array();
  return Template(text, "t").render(variables, limits);
}

std::string error_of(const std::string& text, const json::object& variables = {},
                     const TemplateLimits& limits = {}) {
  return test::error_of([&] { render(text, variables, limits); });
}

const json::object& jinja_cases() {
  static const json::value cases = read_json(test::source_dir() / "halo/jinja/jinja_cases.json");
  return cases.as_object();
}

// Every template with the outcome of Jinja itself (make_jinja_cases.py).
TEST(Template, TemplatesRenderAsInJinja) {
  const json::object& variables = jinja_cases().at("variables").as_object();
  int compared = 0;
  for (const json::value& value : jinja_cases().at("templates").as_array()) {
    const json::object& entry = value.as_object();
    const std::string text(entry.at("template").as_string());
    const json::value& expected = entry.at("expected");
    ++compared;
    if (const json::value* refused = entry.if_contains("refused")) {
      EXPECT_THAT(error_of(text, variables),
                  AllOf(StartsWith("t:"), HasSubstr(std::string(refused->as_string()))))
          << text;
    } else if (expected.is_null()) {
      EXPECT_THAT(error_of(text, variables), StartsWith("t:")) << text;
    } else {
      std::string got;
      const std::string error = test::error_of([&] { got = render(text, variables); });
      EXPECT_EQ(error, "no error") << text;
      EXPECT_EQ(got, std::string(expected.as_string())) << text;
    }
  }
  EXPECT_GT(compared, 250);
}

TEST(Template, ErrorsSayWhere) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n  {% if x %}", "t:2:13: expected {% endif %}, got the end of the template"},
      {"äö{{ 1 + }}", "t:1:10: expected a value, got '}}'"},
      {"\r\n{{ messages | lenght }}",
       "t:2:13: there is no filter 'lenght'; did you mean 'length'?"},
      {"{{ 1 is strin }}", "t:1:6: there is no test 'strin'; did you mean 'string'?"},
      {"{% fro x %}", "t:1:4: there is no tag 'fro'; did you mean 'for'?"},
      {"\n\n{{ 'x' ~\n foo.bar }}", "t:4:5: 'foo' is undefined"},
      {"{{ messages.x.y }}", "t:1:14: 'list object' has no attribute 'x'"},
      {"{{ raise_exception('No roles') }}",
       "t:1:19: the template refuses the conversation: No roles"},
      {"{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}{{ m() }}", "t:2:6: division by zero"},
      {"{{ 'a\n' }}\n{{ [1][0:2 }}", "t:3:12: unexpected '}', expected ']'"},
      {"\xff", "t: the template is not UTF-8"}};
  for (const auto& [text, error] : cases) EXPECT_EQ(error_of(text), error);
}

TEST(Template, NumbersOfJsonThatPythonWouldReadOtherwiseAreRefused) {
  EXPECT_EQ(error_of("{{ x }}", {{"x", 18446744073709551615u}}),
            "x: the integer 18446744073709551615 has more than 64 bits");
  EXPECT_EQ(render("{{ x }}", {{"x", INT64_MIN}}), "-9223372036854775808");
}

// As Python prints what json.loads makes of it.
TEST(Template, FloatsOfJson) {
  for (const auto& [text, shown] : {std::pair{"1e22", "1e+22"},
                                    {"1e16", "1e+16"},
                                    {"1E15", "1000000000000000.0"},
                                    {"9999999999999998.0", "9999999999999998.0"},
                                    {"123456789012345680.0", "1.2345678901234568e+17"},
                                    {"-9223372036854775808.0", "-9.223372036854776e+18"},
                                    {"1.7976931348623157e308", "1.7976931348623157e+308"},
                                    {"1e-05", "1e-05"},
                                    {"0.0001", "0.0001"},
                                    {"-0.0", "-0.0"},
                                    {"5e-324", "5e-324"},
                                    {"2.50", "2.5"},
                                    {"-0", "0"},
                                    {"1e5", "100000.0"}}) {
    const json::value x = parse_json(text, "f", 0, HugeIntegers::kRefused);
    EXPECT_EQ(render("{{ x }}|{{ [x] }}|{{ x | tojson }}", {{"x", x}}),
              fmt::format("{0}|[{0}]|{0}", shown))
        << text;
  }
  const json::object large = {{"x", 1e22}};
  EXPECT_EQ(render("{{ x > 5 }} {{ x == x + 1 }} {{ x is float }} {{ x is integer }}", large),
            "True True True False");
  EXPECT_EQ(render("{{ {x: 1}[x] }} {{ -x }} {{ x // 1 }} {{ '%s' % x }} {{ x | round }}", large),
            "1 -1e+22 1e+22 1e+22 1e+22");
  EXPECT_THAT(error_of("{{ x | int }}", large), HasSubstr("64 bits"));
}

TEST(Template, TimeIsTheOneGiven) {
  const auto now = std::chrono::system_clock::from_time_t(1722000000);  // everywhere July
  EXPECT_EQ(Template("{{ strftime_now('%b %Y %%') }}", "t").render({}, {}, now), "Jul 2024 %");
  EXPECT_THAT(error_of("{{ strftime_now('%9999d') }}"), HasSubstr("too much"));
}

TEST(Template, BudgetsEndWhatRunsAway) {
  const char* steps = "the budget of 10000000 steps is used up";
  const char* bytes = "the budget of 268435456 bytes of text and lists is used up";
  const std::string nine = "{% for a in range(100000) %}{% for b in range(100000) %}";
  const std::string end = "{% endfor %}{% endfor %}";
  EXPECT_THAT(error_of(nine + end), HasSubstr(steps));
  EXPECT_THAT(error_of(nine + "{% if a in [b] %}{% endif %}" + end), HasSubstr(steps));
  EXPECT_THAT(error_of("{% for x in range(1000000000) %}{% endfor %}"),
              HasSubstr("a range of more than 100000 items"));
  EXPECT_THAT(error_of("{{ 'abc' * 1000000000 }}"), HasSubstr(bytes));
  EXPECT_THAT(error_of("{{ 'abc' * 9223372036854775807 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ [1] * 1000000000 }}"), HasSubstr(steps));
  EXPECT_THAT(error_of("{{ 'x'.center(1000000000) }}"), HasSubstr(bytes));
  EXPECT_THAT(error_of("{{ '%1000000000d' % 1 }}"), HasSubstr("a width of more than 1000"));
  EXPECT_THAT(error_of("{% set ns = namespace(s='x') %}{% for i in range(60) %}"
                       "{% set ns.s = ns.s + ns.s %}{% endfor %}"),
              HasSubstr(bytes));
  EXPECT_THAT(error_of("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
                       "{% set ns.s = ns.s.replace('', ns.s) %}{% endfor %}"),
              HasSubstr(bytes));
  EXPECT_THAT(error_of("{% set s = 'x' * 1000000 %}{% for i in range(1000) %}{{ s }}{% endfor %}"),
              HasSubstr("bytes"));
  EXPECT_THAT(error_of("{{ 'x' * 10 }}", {}, {.output = 9}),
              HasSubstr("the budget of 9 bytes of output is used up"));
}

// Values that share parts are small to keep and large to go through.
TEST(Template, BudgetsEndSharedAndNestedValues) {
  const std::string grow = "{% set ns = namespace(x=[1]) %}{% for i in range(NUM) %}{% set ns.x = ";
  const auto grown = [&](const std::string& times, const std::string& step,
                         const std::string& use) {
    std::string text = grow;
    return text.replace(text.find("NUM"), 3, times) + step + " %}{% endfor %}{{ " + use + " }}";
  };
  const std::string doubled = "[ns.x, ns.x]";
  for (const char* use :
       {"ns.x", "ns.x | tojson", "ns.x | string | length", "{ns.x | string: 1}"}) {
    EXPECT_THAT(error_of(grown("60", doubled, use)), HasSubstr("is used up")) << use;
  }
  EXPECT_THAT(error_of(grown("100000", "[ns.x]", "1")), HasSubstr("more than 200 deep"));
  EXPECT_THAT(error_of(grown("100000", "{'a': ns.x}", "1")), HasSubstr("more than 200 deep"));
  EXPECT_THAT(error_of("{% set ns = namespace() %}{% set ns.a = [ns] %}"),
              HasSubstr("not supported"));
  EXPECT_THAT(error_of("{% for x in [1] %}{{ loop.changed([loop]) }}{% endfor %}"),
              HasSubstr("not supported"));
}

TEST(Template, BudgetsEndRecursion) {
  const char* depth = "the budget of 500 evaluations inside each other is used up";
  EXPECT_THAT(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr(depth));
  EXPECT_THAT(
      error_of("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}"
               "{{ a() }}"),
      HasSubstr(depth));
  EXPECT_THAT(error_of("{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{{ caller() }}"
                       "{% endmacro %}{% call m() %}{% endcall %}"),
              HasSubstr(depth));
  EXPECT_THAT(error_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
              HasSubstr(depth));
  std::string maps = "{{ [1] | map(";
  for (int i = 0; i < 600; ++i) maps += "'map', ";
  EXPECT_THAT(error_of(maps + "'string') | list }}"), HasSubstr("a int cannot be iterated over"));
}

TEST(Template, NestingOfTheSourceHasALimit) {
  const auto repeat = [](const std::string& text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
  };
  const char* nested = "inside each other more than 150 deep";
  for (const char* open : {"(", "[", "{1:", "x[", "x(", "-", "not ", "1 if 1 else ", "x|d("}) {
    EXPECT_THAT(
        error_of("{{ " + repeat(open, 50000) + "1"),
        ::testing::AnyOf(HasSubstr(nested), HasSubstr("parts"), HasSubstr("without its end")))
        << open;
  }
  EXPECT_THAT(error_of("{{ " + repeat("(", 1000) + "1" + repeat(")", 1000) + " }}"),
              HasSubstr(nested));
  EXPECT_THAT(error_of(repeat("{% if 1 %}", 1000) + repeat("{% endif %}", 1000)),
              HasSubstr(nested));
  EXPECT_THAT(error_of(repeat("{% for x in [1] %}", 1000)), HasSubstr(nested));
  const std::string parts = "an expression of more than 3000 parts";
  for (const char* more : {" + 1", " ~ 1", ".a", "[0]", " | d", " and 1", " < 1", "()"}) {
    EXPECT_THAT(error_of("{{ 1" + repeat(more, 20000) + " }}"), HasSubstr(parts)) << more;
  }
  EXPECT_THAT(error_of("{{ 1" + repeat(" + 1", 1000) + " }}"), HasSubstr("inside each other"));
  EXPECT_EQ(render("{{ 0" + repeat(" + 1", 300) + " }}"), "300");
  EXPECT_EQ(render(repeat("{% if 1 %}x", 100) + repeat("{% endif %}", 100)), std::string(100, 'x'));
  EXPECT_THAT(error_of(std::string((1 << 20) + 1, 'x')), HasSubstr("a template of more than"));
}

// No step of these may look back: quadratic ones would take minutes.
TEST(Template, LongTextsTakeLinearTime) {
  const std::string a(1 << 20, 'a');
  const json::object variables = {{"a", a}, {"b", a.substr(1 << 19) + "b"}};
  EXPECT_EQ(render("{{ b in a }}{{ a.find(b) }}{{ a.replace(b, '') == a }}{{ a.rfind(b) }}"
                   "{{ a.split(b) | length }}{{ a.count(b) }}",
                   variables),
            "False-1True-110");
  const std::string spaces(1 << 18, ' ');
  EXPECT_EQ(render("x" + spaces + "{%- if 1 %}" + spaces + "{%- endif %}" + spaces + "{{- 1 }}"),
            "x1");
  EXPECT_THAT(error_of("{% raw %}" + spaces + "{%" + spaces), HasSubstr("endraw"));
}

}  // namespace
}  // namespace halo::jinja
