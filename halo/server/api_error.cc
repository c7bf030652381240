#include "halo/server/api_error.h"

#include "halo/base/json_text.h"

namespace halo {

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

HttpAnswer json_answer(const json::value& value, int status) {
  HttpAnswer out;
  out.status = status;
  out.body = format_json_line(value);
  return out;
}

}  // namespace halo
