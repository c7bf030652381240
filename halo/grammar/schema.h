// The JSON schemas that a grammar can hold an answer to.
#pragma once

#include <string>

#include "halo/base/check.h"
#include "halo/base/json.h"

namespace halo {

class SchemaError : public Error {
 public:
  SchemaError(std::string path, const std::string& what) : Error(what), path_(std::move(path)) {}
  const std::string& path() const { return path_; }  // dotted: "schema.properties.a.minimum"

 private:
  std::string path_;
};

// `schema`, which stands at `path`, in the form that json_text (format.h) takes: without
// annotations, with nothing left to defaults. What is written by it is valid by `schema`. A
// SchemaError where a keyword is wrong, or none that the grammar follows to the letter
// (docs/guides/serve.md lists those that are).
json::value checked_schema(const json::value& schema, const std::string& path);

}  // namespace halo
