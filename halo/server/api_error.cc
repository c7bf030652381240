#include "halo/server/api_error.h"

#include <cmath>

namespace halo {
namespace {

// The shortest digits that read back to the same double, so that equal numbers look equal.
void append_line(std::string& out, const json::value& value) {
  if (const auto* object = value.if_object()) {
    out += '{';
    for (bool first = true; const auto& [key, member] : *object) {
      if (!first) out += ',';
      first = false;
      out += json::serialize(json::value(key));
      out += ':';
      append_line(out, member);
    }
    out += '}';
  } else if (const auto* array = value.if_array()) {
    out += '[';
    for (bool first = true; const auto& element : *array) {
      if (!first) out += ',';
      first = false;
      append_line(out, element);
    }
    out += ']';
  } else if (const auto* number = value.if_double()) {
    out += std::isfinite(*number) ? fmt::format("{}", *number) : "null";
  } else {
    out += json::serialize(value);
  }
}

}  // namespace

std::string ApiError::type() const {
  switch (status_) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "unavailable_error";
    default:
      return status_ >= 500 ? "server_error" : "invalid_request_error";
  }
}

json::object ApiError::to_json() const {
  json::object error{{"message", what()}, {"type", type()}};
  error["param"] = param_.empty() ? json::value() : json::value(param_);
  error["code"] = code_.empty() ? json::value() : json::value(code_);
  if (status_ == 503) error["code"] = 503;
  for (const auto& [key, value] : more) error[key] = value;
  return {{"error", std::move(error)}};
}

HttpAnswer ApiError::answer() const {
  HttpAnswer out = json_answer(to_json(), status_);
  if (retry_after > 0) out.headers.emplace_back("retry-after", std::to_string(retry_after));
  if (status_ == 401) out.headers.emplace_back("www-authenticate", "Bearer");
  return out;
}

ApiError bad_field(std::string param, const std::string& message, std::string code) {
  const std::string said = param.empty() ? message : fmt::format("'{}': {}", param, message);
  return {400, std::move(code), std::move(param), said};
}

std::string to_line(const json::value& value) {
  std::string out;
  append_line(out, value);
  return out;
}

HttpAnswer json_answer(const json::value& value, int status) {
  HttpAnswer out;
  out.status = status;
  out.body = to_line(value);
  return out;
}

}  // namespace halo
