// `halo serve`: beginnings of prompts that outlive the process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/system/served.h"

namespace halo::system_test {
namespace {

using testing::HasSubstr;

constexpr const char* kGreedy =
    R"("max_tokens": 8, "temperature": 0, "ignore_eos": true, "logprobs": 0)";

std::string long_prompt(int words) {
  std::string out = "The old dog";
  for (int i = 0; i < words; ++i) out += i % 3 == 0 ? " follows the cat" : " and the old man";
  return out;
}

json::value cached(const json::value& answer) {
  return answer.at("usage").at("prompt_tokens_details").at("cached_tokens");
}

TEST(ServeSlots, GoOnAfterARestart) {
  const fs::path folder = World::get().folder("slots");
  fs::create_directories(folder);
  const Words options = {"--slots", "--slot-folder", folder.string()};
  const std::string prompt = long_prompt(60);
  const std::string body = fmt::format(R"({{"prompt": "{}", {}}})", prompt, kGreedy);
  const std::string save = fmt::format(R"({{"name": "dog.1", "prompt": "{}"}})", prompt);
  json::value first;
  {
    Server server(options);
    EXPECT_THAT(server.refused("/slots/save", save, 400).at("message").as_string(),
                HasSubstr("nothing of the text is kept"));
    first = server.ask("/v1/completions", body);
    EXPECT_EQ(cached(first), 0);
    const json::value saved = server.ask("/slots/save", save);
    EXPECT_EQ(saved.at("tokens"), first.at("usage").at("prompt_tokens"));
    const json::value list = server.get("/slots").at("saved");
    ASSERT_EQ(list.as_array().size(), 1u);
    EXPECT_EQ(list.at(0).at("name"), "dog.1");
    EXPECT_EQ(list.at(0).at("bytes"), saved.at("bytes"));
    server.process().send(SIGTERM);
    EXPECT_EQ(server.process().wait().code, 0);
  }
  Server server(options);
  const json::value restored = server.ask("/slots/restore", R"({"name": "dog.1"})");
  EXPECT_EQ(restored.at("tokens"), first.at("usage").at("prompt_tokens"));
  const json::value again = server.ask("/v1/completions", body);
  EXPECT_EQ(cached(again), restored.at("tokens"));
  EXPECT_EQ(again.at("choices"), first.at("choices"));
  // Whoever has another salt shares nothing, unless it is restored for them.
  const std::string salted =
      fmt::format(R"({{"prompt": "{}", "cache_salt": "a", {}}})", prompt, kGreedy);
  EXPECT_EQ(cached(server.ask("/v1/completions", salted)), 0);
  EXPECT_EQ(server.ask("/slots/erase", R"({"name": "dog.1"})").at("erased"), true);
  EXPECT_EQ(server.refused("/slots/restore", R"({"name": "dog.1"})", 404).at("param"), "name");
  EXPECT_TRUE(fs::is_empty(folder));
}

TEST(ServeSlots, AConversationIsSavedByItsMessages) {
  const fs::path folder = World::get().folder("slots");
  fs::create_directories(folder);
  Server server({"--slot-folder", folder.string()});
  const std::string messages =
      fmt::format(R"("messages": [{{"role": "user", "content": "{}"}}])", long_prompt(50));
  const json::value answer =
      server.ask("/v1/chat/completions",
                 fmt::format(R"({{{}, "max_tokens": 4, "cache_salt": "s"}})", messages));
  const json::value saved = server.ask(
      "/slots/save", fmt::format(R"({{"name": "chat", "cache_salt": "s", {}}})", messages));
  EXPECT_EQ(saved.at("tokens"), answer.at("usage").at("prompt_tokens"));
}

TEST(ServeSlots, NamesAndFilesOfOthersAreRefused) {
  EXPECT_EQ(server().refused("/slots/save", R"({"name": "a", "prompt": "b"})", 404).at("code"),
            "slots_off");
  const fs::path folder = World::get().folder("slots");
  fs::create_directories(folder);
  write_file(folder / "damaged", "none");
  fs::create_symlink(World::get().teacher() / "model.safetensors", folder / "link");
  Server server({"--slot-folder", folder.string(), "--slot-gb", "0.000001"});
  for (const char* name : {"", "..", "../a", "a/b", ".a", "/etc/passwd"}) {
    for (const char* route : {"/slots/save", "/slots/restore", "/slots/erase"}) {
      const std::string body = fmt::format(R"({{"name": "{}", "prompt": "a"}})", name);
      EXPECT_EQ(server.refused(route, body, 400).at("param"), "name") << route << name;
    }
  }
  EXPECT_EQ(server.refused("/slots/restore", R"({"name": "link"})", 404).at("param"), "name");
  const json::value damaged = server.refused("/slots/restore", R"({"name": "damaged"})", 400);
  EXPECT_EQ(damaged.at("code"), "slot_unusable");
  EXPECT_EQ(damaged.at("message").as_string().find(folder.string()), std::string::npos);
  const json::value full =
      server.refused("/slots/save", R"({"name": "a", "prompt": "The old dog"})", 400);
  EXPECT_EQ(full.at("code"), "slots_full");
  expect_error(
      run_halo({"serve", chat_model().string(), "--port", "0", "--slot-folder", "/nowhere"}), 1,
      {"--slot-folder", "/nowhere"});
}

}  // namespace
}  // namespace halo::system_test
