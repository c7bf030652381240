#include "halo/jinja/parser.h"

#include "halo/base/nearest.h"
#include "halo/jinja/expression_parser.h"

namespace halo::jinja {
namespace {

constexpr size_t kMaxSourceBytes = 1 << 20;

class StatementParser : ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Block parse() {
    Block block = parse_block({});
    if (!at(Kind::kEnd)) unexpected("text or a tag");
    return block;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  template <class Node>
  static std::unique_ptr<Statement> make(size_t at, Node node) {
    return std::make_unique<Statement>(Statement{at, std::move(node)});
  }

  bool at_any(Names names) const {
    return std::ranges::any_of(names, [&](std::string_view name) { return at_name(name); });
  }

  void expect_block_end() {
    if (!at(Kind::kBlockEnd)) unexpected("'%}'");
    take();
  }

  // Statements up to a tag of one of these names, which is then current; to the end of the template
  // if there are none.
  Block parse_block(Names ends) {
    const Nested nested(*this);
    Block block;
    while (!at(Kind::kEnd)) {
      const size_t begin = current().at;
      if (at(Kind::kData)) {
        block.push_back(make(begin, Text{take().text}));
      } else if (at(Kind::kVariableBegin)) {
        take();
        std::vector<ExpressionPtr> values;
        values.push_back(parse_tuple({}));
        if (!at(Kind::kVariableEnd)) unexpected("'}}'");
        take();
        block.push_back(make(begin, Print{std::move(values)}));
      } else {
        take();  // '{%'
        if (at_any(ends)) return block;
        block.push_back(parse_statement(ends));
        expect_block_end();
      }
    }
    if (ends.size() > 0) unexpected(fmt::format("{{% {} %}}", *(ends.end() - 1)));
    return block;
  }

  // The body of a tag, whose head ends here.
  Block parse_body(Names ends) {
    skip_operator(":");
    expect_block_end();
    return parse_block(ends);
  }
  Block parse_body_to(std::string_view end) {
    Block body = parse_body({end});
    take();
    return body;
  }
  // A body that is a function of its own: a loop around it cannot be left from inside.
  Block parse_function_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block body = parse_body_to(end);
    loops_ = loops;
    return body;
  }

  std::unique_ptr<Statement> parse_statement(Names ends) {
    const size_t begin = current().at;
    if (!at(Kind::kName)) unexpected("the name of a tag");
    const std::string tag = take().text;
    if (tag == "if") return make(begin, parse_if());
    if (tag == "for") return make(begin, parse_for());
    if (tag == "set") return parse_set(begin);
    if (tag == "macro") return make(begin, parse_macro());
    if (tag == "call") return make(begin, parse_call());
    if (tag == "filter") return make(begin, parse_filter_block());
    if (tag == "with") return make(begin, parse_with());
    if (tag == "print") return make(begin, parse_print());
    if (tag == "generation") return make(begin, Generation{parse_function_body("endgeneration")});
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail(begin, "'{}' outside of a loop", tag);
      return tag == "break" ? make(begin, Break{}) : make(begin, Continue{});
    }
    refuse_tag(begin, tag, ends);
  }

  [[noreturn]] void refuse_tag(size_t begin, const std::string& tag, Names ends) {
    for (const std::string_view known :
         {"autoescape", "block", "extends", "from", "import", "include"}) {
      if (tag == known) fail(begin, "the tag '{}' is not supported", tag);
    }
    if (tag.starts_with("end") || tag == "else" || tag == "elif") {
      if (ends.size() == 0) fail(begin, "'{}' closes nothing", tag);
      fail(begin, "'{}' where {{% {} %}} is expected", tag, *(ends.end() - 1));
    }
    fail(begin, "there is no tag '{}'; did you mean '{}'?", tag,
         nearest(tag, {"if", "for", "set", "macro", "call", "filter", "with", "print", "raw",
                       "generation", "break", "continue"}));
  }

  If parse_if() {
    If out;
    ++conditional_blocks_;
    for (;;) {
      ExpressionPtr condition = parse_tuple({.conditional = false});
      Block body = parse_body({"elif", "else", "endif"});
      out.branches.emplace_back(std::move(condition), std::move(body));
      const std::string next = take().text;
      if (next == "elif") continue;
      if (next == "else") out.otherwise = parse_body_to("endif");
      break;
    }
    --conditional_blocks_;
    return out;
  }

  For parse_for() {
    For out;
    out.target = parse_target({}, false);
    if (!skip_name("in")) unexpected("'in'");
    out.items = parse_tuple({.conditional = false});
    if (skip_name("if")) out.filter = parse_expression();
    out.recursive = skip_name("recursive");
    ++loops_;
    out.body = parse_body({"else", "endfor"});
    --loops_;
    if (take().text == "else") out.otherwise = parse_body_to("endfor");
    return out;
  }

  std::unique_ptr<Statement> parse_set(size_t begin) {
    Target target = parse_target({}, true);
    if (skip_operator("=")) {
      ExpressionPtr value = parse_tuple({});
      return make(begin, Set{std::move(target), std::move(value)});
    }
    ExpressionPtr filter = parse_filters(nullptr);
    Block body = parse_body_to("endset");
    return make(begin, SetBlock{std::move(target), std::move(filter), std::move(body)});
  }

  Target parse_one_target(bool with_namespace) {
    const Nested nested(*this);
    const size_t begin = current().at;
    if (skip_operator("(")) {
      Target target = parse_target({.parenthesized = true}, with_namespace);
      expect_operator(")");
      return target;
    }
    Target target{begin, expect_name(), "", {}};
    for (const std::string_view word : {"true", "false", "none", "True", "False", "None"}) {
      if (target.name == word) fail(begin, "'{}' cannot be assigned to", word);
    }
    if (target.name == "loop" && loops_ > 0) fail(begin, "'loop' cannot be assigned to in a loop");
    if (with_namespace && skip_operator(".")) target.attribute = expect_name();
    return target;
  }

  Target parse_target(const TupleRules& rules, bool with_namespace) {
    Target out{current().at, "", "", {}};
    for (;;) {
      const bool at_end = at(Kind::kBlockEnd) || at_operator(")") || at_operator("=");
      if (at_end && (out.is_tuple || rules.parenthesized)) break;
      out.parts.push_back(parse_one_target(with_namespace));
      if (!skip_operator(",")) break;
      out.is_tuple = true;
    }
    if (out.is_tuple || out.parts.empty()) {
      out.is_tuple = true;
      return out;
    }
    return std::move(out.parts.front());
  }

  void parse_signature(Signature& signature) {
    expect_operator("(");
    while (!at_operator(")")) {
      const size_t begin = current().at;
      Signature::Parameter parameter{expect_name(), nullptr};
      if (skip_operator("=")) {
        parameter.otherwise = parse_expression();
      } else if (!signature.parameters.empty() && signature.parameters.back().otherwise) {
        fail(begin, "a parameter without a default behind one that has it");
      }
      for (const Signature::Parameter& other : signature.parameters) {
        if (other.name == parameter.name) fail(begin, "two parameters '{}'", other.name);
      }
      signature.parameters.push_back(std::move(parameter));
      if (!skip_operator(",")) break;
    }
    expect_operator(")");
  }

  // The body of a macro, with what its names say that it takes.
  void parse_macro_body(Macro& macro, std::string_view end) {
    macros_.push_back(&macro.signature);
    macro.body = parse_function_body(end);
    macros_.pop_back();
    for (const Signature::Parameter& parameter : macro.signature.parameters) {
      if (parameter.name == "varargs") macro.signature.takes_varargs = false;
      if (parameter.name == "kwargs") macro.signature.takes_kwargs = false;
      if (parameter.name == "caller") macro.signature.takes_caller = false;
    }
  }

  Macro parse_macro() {
    Macro macro;
    macro.name = expect_name();
    parse_signature(macro.signature);
    parse_macro_body(macro, "endmacro");
    return macro;
  }

  CallBlock parse_call() {
    CallBlock out;
    out.caller.name = "caller";
    if (at_operator("(")) parse_signature(out.caller.signature);
    const size_t begin = current().at;
    out.call = parse_expression();
    if (!std::holds_alternative<Call>(out.call->node)) fail(begin, "expected a call");
    parse_macro_body(out.caller, "endcall");
    return out;
  }

  FilterBlock parse_filter_block() {
    ExpressionPtr filter = parse_filters(parse_filter(nullptr, current().at));
    Block body = parse_body_to("endfilter");
    return {std::move(filter), std::move(body)};
  }

  With parse_with() {
    With out;
    while (!at(Kind::kBlockEnd) && !at_operator(":")) {
      if (!out.assignments.empty()) expect_operator(",");
      Target target = parse_target({}, false);
      expect_operator("=");
      out.assignments.emplace_back(std::move(target), parse_expression());
    }
    out.body = parse_body_to("endwith");
    return out;
  }

  Print parse_print() {
    Print out;
    while (!at(Kind::kBlockEnd)) {
      if (!out.values.empty()) expect_operator(",");
      out.values.push_back(parse_expression());
    }
    return out;
  }

  int loops_ = 0;  // around, in this function
};

}  // namespace

Block parse_template(const Source& source, Budget& budget) {
  if (source.text().size() > kMaxSourceBytes) {
    source.fail(0, "a template of more than {} bytes", kMaxSourceBytes);
  }
  return StatementParser(source, budget).parse();
}

}  // namespace halo::jinja
