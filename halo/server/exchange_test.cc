#include "halo/server/exchange.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

TEST(Exchange, AWholeAnswerIsTakenOnce) {
  int woken = 0;
  Exchange exchange({}, [&] { ++woken; });
  EXPECT_FALSE(exchange.take(100).head);
  exchange.answer({.body = "a"});
  exchange.answer({.body = "b"});
  const Exchange::Output output = exchange.take(100);
  EXPECT_EQ(output.head->body, "a");
  EXPECT_TRUE(output.ended);
  EXPECT_FALSE(exchange.take(100).head);
  EXPECT_EQ(woken, 1);
}

TEST(Exchange, PiecesAreTakenInOrderAndInParts) {
  Exchange exchange({}, [] {});
  exchange.write("lost");  // before the beginning
  exchange.begin({}, "ping");
  EXPECT_EQ(exchange.ping(), "ping");
  std::string all, taken;
  for (int i = 0; i < 50; ++i) {
    const std::string piece(static_cast<size_t>(i), static_cast<char>('a' + i % 26));
    all += piece;
    exchange.write(piece);
    taken += exchange.take(17).bytes;
  }
  exchange.end();
  exchange.write("late");
  EXPECT_EQ(exchange.ping(), "");
  while (true) {
    const Exchange::Output output = exchange.take(17);
    taken += output.bytes;
    if (output.ended) break;
  }
  EXPECT_EQ(taken, all);
}

TEST(Exchange, TellsOnceThatTheClientHasGone) {
  Exchange exchange({}, [] {});
  int told = 0;
  exchange.when_gone([&] { ++told; });
  exchange.set_gone();
  exchange.set_gone();
  EXPECT_EQ(told, 1);
  exchange.when_gone([&] { ++told; });  // at once
  EXPECT_EQ(told, 2);
}

TEST(Exchange, AClientThatReadsNothingHasGone) {
  Exchange exchange({}, [] {});
  exchange.begin({});
  for (int i = 0; i < 20; ++i) exchange.write(std::string(1 << 20, 'x'));
  EXPECT_TRUE(exchange.gone());
}

TEST(Exchange, BehindTheEndNobodyIsMissed) {
  Exchange exchange({}, [] {});
  int told = 0;
  exchange.when_gone([&] { ++told; });
  exchange.answer({});
  exchange.take(100);
  exchange.set_gone();
  EXPECT_EQ(told, 0);
}

}  // namespace
}  // namespace halo
