// Stores whose weights stay in their file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/model/parameters.h"
#include "tests/testing.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A folder with one file of tensors a [2, 3], b [1, 3], c [4] in the given order.
class MappedStore : public testing::Test {
 protected:
  void write(const std::vector<std::string>& order, at::ScalarType type = at::kBFloat16) {
    std::vector<at::Tensor> tensors;
    std::vector<TensorView> views;
    for (const std::string& name : order) {
      tensors.push_back(values(name).to(type));
      views.push_back(to_view(name, tensors.back()));
    }
    write_safetensors(folder_ / "model.safetensors", views);
    files_ = std::make_shared<WeightFiles>(folder_.path());
  }
  static at::Tensor values(const std::string& name) {
    if (name == "a") return at::arange(6).view({2, 3}).to(at::kFloat);
    if (name == "b") return at::arange(6, 9).view({1, 3}).to(at::kFloat);
    return at::arange(4).to(at::kFloat) - 2;
  }
  ParameterStore store(at::ScalarType compute = at::kBFloat16) const {
    return {specs_, compute, files_, files_->tensors(), "folder"};
  }
  const void* in_file(const std::string& name) const { return files_->find(name)->bytes.data(); }

  const std::vector<ParameterSpec> specs_ = {
      {"a", {2, 3}, false}, {"b", {1, 3}, true}, {"c", {4}, false}};
  const test::Folder folder_;
  std::shared_ptr<WeightFiles> files_;
};

TEST_F(MappedStore, UsesStacksWhereTheyLieAndCopiesTheOthers) {
  for (const bool in_order : {true, false}) {
    write(in_order ? std::vector<std::string>{"c", "a", "b"}
                   : std::vector<std::string>{"b", "a", "c"});
    const ParameterStore s = store();
    EXPECT_EQ(s.weight("a").value.data_ptr() == in_file("a"), in_order);
    EXPECT_EQ(s.weight("c").value.data_ptr(), in_file("c"));
    EXPECT_EQ(s.compute().numel(), in_order ? 0 : 9);
    const at::Tensor stack = s.stack("a", "b").value;
    EXPECT_TRUE(at::equal(stack.to(at::kFloat), at::cat({values("a"), values("b")})));
    s.visit_values([&](const ParameterSpec& spec, const at::Tensor& value) {
      EXPECT_TRUE(at::equal(value.to(at::kFloat), values(spec.name))) << spec.name;
      EXPECT_EQ(value.data_ptr(), s.value(spec.name).data_ptr());
    });
    EXPECT_FALSE(s.weight("a").value.requires_grad());
  }
}

TEST_F(MappedStore, OtherTypesAreConverted) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kDouble}) {
    write({"a", "b", "c"}, type);
    const ParameterStore s = store();
    EXPECT_EQ(s.value("c").scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(s.value("c").to(at::kFloat), values("c")));
    EXPECT_NE(s.value("c").data_ptr(), in_file("c"));
  }
}

TEST_F(MappedStore, WritesStayInTheStore) {
  write({"a", "b", "c"});
  {
    ParameterStore s = store();
    s.value("a").fill_(100);
    EXPECT_EQ(s.stack("a", "b").value[1][2].item<float>(), 100);
  }
  files_ = std::make_shared<WeightFiles>(folder_.path());
  EXPECT_TRUE(at::equal(store().value("a").to(at::kFloat), values("a")));
}

TEST_F(MappedStore, ValuesOutliveTheStoreAndTheFolder) {
  write({"a", "b", "c"});
  Weight weight;
  {
    ParameterStore s = store();
    weight = s.weight("c");
  }
  files_.reset();
  fs::remove(folder_ / "model.safetensors");
  EXPECT_TRUE(at::equal(weight.value.to(at::kFloat), values("c")));
}

TEST_F(MappedStore, IsAsStrictAsLoad) {
  const auto error = [&]() -> std::string {
    ParameterStore arena(specs_, ParameterStore::Use::kFrozen, at::kFloat, at::kCPU);
    std::string loaded;
    try {
      arena.load(files_->tensors(), "folder");
    } catch (const Error& e) {
      loaded = e.what();
    }
    try {
      store();
    } catch (const Error& e) {
      EXPECT_EQ(loaded, e.what());
      return e.what();
    }
    return "no error";
  };
  write({"a", "b"});
  EXPECT_THAT(error(), HasSubstr("'c' [4] is missing"));
  write({"a", "b", "c", "d"});
  EXPECT_THAT(error(), HasSubstr("'d' belongs to nothing"));
  write({"a", "b", "c"}, at::kLong);
  EXPECT_THAT(error(), HasSubstr("type I64"));
  const at::Tensor wrong = at::zeros({3, 2});
  write_safetensors(folder_ / "model.safetensors", std::vector{to_view("a", wrong)});
  files_ = std::make_shared<WeightFiles>(folder_.path());
  EXPECT_THAT(error(), HasSubstr("'a' has shape [3, 2], config.json asks for [2, 3]"));
}

}  // namespace
}  // namespace halo
