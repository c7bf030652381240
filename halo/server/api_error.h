// What the API says went wrong: {"error": {"message", "type", "param", "code", ...}}.
#pragma once

#include <string>

#include "halo/base/check.h"
#include "halo/base/json.h"
#include "halo/server/exchange.h"

namespace halo {

class ApiError : public Error {
 public:
  // `param` is a dotted path into the request ("messages.0.role"), empty where no field is at
  // fault.
  ApiError(int status, std::string code, std::string param, const std::string& message)
      : Error(message), status_(status), code_(std::move(code)), param_(std::move(param)) {}

  int status() const { return status_; }
  const std::string& param() const { return param_; }
  // "invalid_request_error" and the like, by the status.
  std::string type() const;
  json::object to_json() const;
  HttpAnswer answer() const;

  json::object more;        // further members of the error
  int64_t retry_after = 0;  // seconds, of a header; 0: none

 private:
  int status_;
  std::string code_, param_;
};

// A field of a request is wrong: 400.
ApiError bad_field(std::string param, const std::string& message,
                   std::string code = "invalid_value");

// An answer of JSON on one line.
HttpAnswer json_answer(const json::value& value, int status = 200);

}  // namespace halo
