#include "halo/server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace halo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ServerMetrics, AreWrittenAsPrometheusReadsThem) {
  ServerMetrics metrics("a \"b\"\n");
  metrics.add("prompt_tokens_total", "", 5);
  metrics.add("prompt_tokens_total", "", 2);
  metrics.add("request_success_total", "finished_reason=\"stop\"");
  metrics.observe("request_prompt_tokens", 2);
  metrics.observe("request_prompt_tokens", 3);
  metrics.observe("request_prompt_tokens", 1e9);
  const std::string text =
      metrics.text({{"num_requests_running", "What runs", 3}, {"steps_total", "Steps", 4, true}});
  const std::string model = "{model_name=\"a \\\"b\\\"\\n\"";
  EXPECT_THAT(text, HasSubstr("# HELP halo_prompt_tokens_total "));
  EXPECT_THAT(text, HasSubstr("# TYPE halo_prompt_tokens_total counter\nhalo_prompt_tokens_total" +
                              model + "} 7\n"));
  EXPECT_THAT(text,
              HasSubstr("halo_request_success_total" + model + ",finished_reason=\"stop\"} 1\n"));
  // Buckets count everything up to their bound.
  const std::string bucket = "halo_request_prompt_tokens_bucket" + model + ",le=";
  EXPECT_THAT(text,
              HasSubstr(bucket + "\"1\"} 0\n" + bucket + "\"2\"} 1\n" + bucket + "\"5\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(bucket + "\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("halo_request_prompt_tokens_count" + model + "} 3\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE halo_num_requests_running gauge\nhalo_num_requests_running" +
                              model + "} 3\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE halo_steps_total counter\n"));
  EXPECT_THAT(text, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace halo
