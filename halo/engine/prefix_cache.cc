#include "halo/engine/prefix_cache.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "halo/base/check.h"

namespace halo {

// A place in the tree: what is above it, and then `edge`. One without children has a snapshot.
struct PrefixCache::Node {
  Node* parent = nullptr;
  uint64_t salt = 0;
  std::vector<int32_t> edge;  // tokens behind the parent's; none at a root
  int64_t depth = 0;          // tokens from the root on, the edge's included
  std::map<int32_t, std::unique_ptr<Node>> children;  // by the first token of their edges
  std::optional<OwnedSequence> snapshot;
  at::Tensor logits;  // [V] after it, or undefined
  int64_t serial = 0;
  double used = 0;  // the clock when it was
};

// How far tokens lead into the tree.
struct PrefixCache::Reach {
  Node* node = nullptr;     // the last that they pass; null: no root
  Node* partial = nullptr;  // its child whose edge they share `along` tokens of, not all; or null
  int64_t along = 0;
  int64_t depth = 0;  // tokens in all
};

namespace {

int64_t common_prefix(std::span<const int32_t> edge, std::span<const int64_t> tokens) {
  return std::ranges::mismatch(edge, tokens).in1 - edge.begin();
}

}  // namespace

PrefixCache::PrefixCache(Engine& engine)
    : engine_(engine),
      bytes_(state_bytes(engine.weights(), engine.options().block_size, engine.options().kv_type)) {
}

PrefixCache::~PrefixCache() = default;

PrefixCache::Reach PrefixCache::walk(uint64_t salt, std::span<const int64_t> tokens) const {
  const auto root = roots_.find(salt);
  if (root == roots_.end()) return {};
  Reach reach{.node = root->second.get()};
  while (reach.depth < std::ssize(tokens)) {
    const auto& children = reach.node->children;
    const auto next = children.find(static_cast<int32_t>(tokens[reach.depth]));
    if (next == children.end()) break;
    Node* child = next->second.get();
    const int64_t along = common_prefix(child->edge, tokens.subspan(reach.depth));
    reach.depth += along;
    if (along < std::ssize(child->edge)) {
      reach.partial = child;
      reach.along = along;
      break;
    }
    reach.node = child;
  }
  return reach;
}

PrefixCache::Match PrefixCache::find(uint64_t salt, std::span<const int64_t> tokens,
                                     int64_t most) const {
  const Reach reach = walk(salt, tokens);
  Match match{.common = reach.depth};
  if (!reach.node) return match;
  const int64_t size = std::ssize(tokens), part = std::min(most, size - 1);
  if (reach.node->depth == size && reach.node->snapshot && reach.node->logits.defined() &&
      most >= size) {
    match.node = reach.node;
    match.tokens = size;
    match.logits = reach.node->logits;
    return match;
  }
  if (engine_.can_cut()) {
    // Any snapshot behind what is shared begins with it.
    match.tokens = std::min(reach.depth, part);
    if (match.tokens <= 0) return match;
    Node* node = reach.partial ? reach.partial : reach.node;
    while (!node->snapshot) node = node->children.begin()->second.get();
    match.node = node;
    return match;
  }
  for (Node* node = reach.node; node; node = node->parent) {
    if (!node->snapshot || node->depth > part) continue;
    match.node = node;
    match.tokens = node->depth;
    return match;
  }
  return match;
}

OwnedSequence PrefixCache::start(const Match& match) {
  match.node->used = clock_;
  return {engine_, engine_.fork(match.node->snapshot->id(), match.tokens)};
}

bool PrefixCache::contains(uint64_t salt, std::span<const int64_t> tokens, bool with_logits) const {
  const Reach reach = walk(salt, tokens);
  return reach.node && reach.node->snapshot && reach.node->depth == std::ssize(tokens) &&
         (!with_logits || reach.node->logits.defined());
}

void PrefixCache::insert(uint64_t salt, std::span<const int64_t> tokens, OwnedSequence sequence,
                         at::Tensor logits) {
  HALO_CHECK(!tokens.empty() && engine_.length(sequence.id()) == std::ssize(tokens),
             "prefix cache: a sequence of {} tokens is said to be of {}",
             engine_.length(sequence.id()), tokens.size());
  auto& root = roots_[salt];
  if (!root) {
    root = std::make_unique<Node>();
    root->salt = salt;
  }
  Reach reach = walk(salt, tokens);
  Node* node = reach.node;
  if (reach.partial) {  // a node where they part
    auto& place = node->children.at(reach.partial->edge.front());
    std::unique_ptr<Node> below = std::move(place);
    place = std::make_unique<Node>();
    Node* fork = place.get();
    fork->parent = node;
    fork->salt = salt;
    fork->depth = reach.depth;
    fork->edge.assign(below->edge.begin(), below->edge.begin() + reach.along);
    below->edge.erase(below->edge.begin(), below->edge.begin() + reach.along);
    below->parent = fork;
    fork->children[below->edge.front()] = std::move(below);
    node = fork;
  }
  if (reach.depth < std::ssize(tokens)) {
    auto leaf = std::make_unique<Node>();
    leaf->parent = node;
    leaf->salt = salt;
    leaf->depth = std::ssize(tokens);
    for (const int64_t token : tokens.subspan(reach.depth)) {
      leaf->edge.push_back(static_cast<int32_t>(token));
    }
    Node* made = leaf.get();
    node->children[leaf->edge.front()] = std::move(leaf);
    node = made;
  }
  node->used = clock_;
  if (logits.defined()) node->logits = std::move(logits);
  if (node->snapshot) return;
  node->snapshot.emplace(std::move(sequence));
  node->serial = next_serial_++;
  snapshots_[node->serial] = node;
}

// Tokens to compute again from the snapshot above, over the bytes that go free.
double PrefixCache::worth(const Node& node) const {
  const Node* above = node.parent;
  while (above && !above->snapshot) above = above->parent;
  const int64_t tokens = node.depth - (above ? above->depth : 0);
  const int64_t blocks = tokens / engine_.options().block_size + 1;
  const int64_t bytes = bytes_.slot + blocks * bytes_.block +
                        (node.logits.defined() ? static_cast<int64_t>(node.logits.nbytes()) : 0);
  return node.used + static_cast<double>(tokens) / static_cast<double>(std::max<int64_t>(1, bytes));
}

bool PrefixCache::evict(const Node* keep) {
  Node* least = nullptr;
  double least_worth = 0;
  for (const auto& [serial, node] : snapshots_) {
    if (node == keep) continue;
    const double worth = this->worth(*node);
    if (least && worth >= least_worth) continue;
    least = node;
    least_worth = worth;
  }
  if (!least) return false;
  clock_ = std::max(clock_, least_worth);
  snapshots_.erase(least->serial);
  least->snapshot.reset();
  least->logits = at::Tensor();
  prune(least->salt, least);
  return true;
}

// Nodes that lead to no snapshot go, and one without a snapshot becomes part of its only child.
void PrefixCache::prune(uint64_t salt, Node* node) {
  while (node->parent && !node->snapshot && node->children.empty()) {
    Node* parent = node->parent;
    const int32_t first = node->edge.front();
    parent->children.erase(first);
    node = parent;
  }
  if (!node->parent) {
    if (node->children.empty()) roots_.erase(salt);
    return;
  }
  if (node->snapshot || node->children.size() != 1) return;
  std::unique_ptr<Node> child = std::move(node->children.begin()->second);
  child->edge.insert(child->edge.begin(), node->edge.begin(), node->edge.end());
  child->parent = node->parent;
  node->parent->children.at(node->edge.front()) = std::move(child);  // ends `node`
}

}  // namespace halo
