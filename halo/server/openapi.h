// The API in OpenAPI's terms: the text of openapi.json.
#pragma once

#include <string_view>

namespace halo {

std::string_view openapi_json();

}  // namespace halo
