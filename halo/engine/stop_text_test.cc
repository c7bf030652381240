#include "halo/engine/stop_text.h"

#include <gtest/gtest.h>

#include "halo/base/check.h"

namespace halo {
namespace {

// What comes out of a text that arrives in pieces, and whether it was ended.
std::pair<std::string, bool> through(const std::vector<std::string>& stops,
                                     const std::vector<std::string>& pieces) {
  StopText text(stops);
  std::string out;
  for (const std::string& piece : pieces) out += text.push(piece);
  const bool stopped = text.stopped();
  return {out + text.finish(), stopped};
}

TEST(StopText, EndsBeforeTheFirstStopHoweverTheTextArrives) {
  const std::string text = "one two\n\nthree END four";
  const std::pair<std::string, bool> expected{"one two", true};
  for (size_t size = 1; size <= text.size(); ++size) {
    std::vector<std::string> pieces;
    for (size_t i = 0; i < text.size(); i += size) pieces.push_back(text.substr(i, size));
    EXPECT_EQ(through({"END", "\n\n"}, pieces), expected) << size;
  }
}

TEST(StopText, OfTwoInEachOtherTheOneThatIsCompleteFirst) {
  for (const std::vector<std::string>& pieces :
       {std::vector<std::string>{"xabcd"}, {"xa", "bcd"}}) {
    EXPECT_EQ(through({"xabc", "ab"}, pieces), (std::pair<std::string, bool>{"x", true}));
    EXPECT_EQ(through({"ab", "xab"}, pieces), (std::pair<std::string, bool>{"", true}));
  }
}

TEST(StopText, GivesAllWhereNoneComes) {
  EXPECT_EQ(through({"abc"}, {"xab", "abd", "ab"}),
            (std::pair<std::string, bool>{"xababdab", false}));
  EXPECT_EQ(through({}, {"a", "b"}), (std::pair<std::string, bool>{"ab", false}));
}

TEST(StopText, HoldsBackNoMoreThanMayBeAStop) {
  StopText text({"aab"});
  EXPECT_EQ(text.push("xa"), "x");
  EXPECT_EQ(text.push("a"), "");
  EXPECT_EQ(text.push("a"), "a");
  EXPECT_EQ(text.push("b!"), "");
  EXPECT_TRUE(text.stopped());
  EXPECT_EQ(text.push("more"), "");
  EXPECT_EQ(text.finish(), "");
}

TEST(StopText, EmptyIsAnError) {
  EXPECT_THROW(StopText({"a", ""}), Error);
}

}  // namespace
}  // namespace halo
