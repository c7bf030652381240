// halo: turns a pretrained Transformer into a HypeNet, evaluates and runs it.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/system/system_error.hpp>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <stdexcept>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/nearest.h"
#include "halo/base/stop.h"
#include "halo/cli/commands.h"
#include "halo/cli/output.h"
#include "halo/cli/version.h"
#include "halo/pipeline/fit.h"
#include "halo/runtime/communicator.h"

namespace {

const std::string kOutOfMemory = "out of memory; use a shorter sequence or fewer rows at a time";

// OpenMP reads its settings when it is loaded, before main: spinning at its barriers costs up to
// 40x where a core is shared. So the program starts itself once more with passive waiting.
void wait_passively(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY")) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);  // on failure the command runs as it is, only slower
}

// Of several ranks the first says what all of them run into; run_ranks says what one alone does.
void leave_talking_to_the_first_rank() {
  const char* rank = std::getenv("RANK");
  if (rank && std::string(rank) != "0") std::cerr.setstate(std::ios::failbit);
}

int fail(int code, const std::string& message) {
  std::cerr << "halo: " << message << "\n";
  return code;
}

// "" names no file and no folder.
void refuse_empty_words(CLI::App& app) {
  const auto check = [](const std::string& word) {
    return word.empty() ? std::string("is empty; give a path") : std::string();
  };
  for (CLI::Option* option : app.get_options()) {
    if (option->get_required()) option->check(CLI::Validator(check, ""));
  }
  for (CLI::App* command : app.get_subcommands({})) refuse_empty_words(*command);
}

// The command that the words name as far as they name one.
const CLI::App& named_command(const CLI::App& app) {
  const std::vector<CLI::App*> named = app.get_subcommands();
  return named.empty() ? app : named_command(*named.front());
}

int fail_usage(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = named_command(app);
  const auto is_listed = [](const CLI::App* child) { return !child->get_group().empty(); };
  const auto commands = command.get_subcommands(is_listed);
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) &&
      !commands.empty()) {
    const std::vector<std::string> words = command.remaining();
    if (words.empty()) {
      std::cerr << command.help();
      return 2;
    }
    std::vector<std::string> names;
    for (const CLI::App* child : commands) names.push_back(child->get_name());
    return fail(2, fmt::format("there is no command '{}'; did you mean '{}'?", words.front(),
                               halo::nearest(words.front(), names)));
  }
  return app.exit(error) == 0 ? 0 : 2;
}

// Runs the command; returns the exit code.
int run(CLI::App& app, int argc, char** argv) {
  try {
    try {
      app.parse(argc, argv);
      std::cout.flush();
      return 0;
    } catch (const CLI::ParseError& error) {
      const int code = fail_usage(app, error);
      std::cout.flush();
      return code;
    } catch (const halo::Error&) {
      if (std::cout.good()) std::cout.flush();  // a plan that does not fit is printed all the same
      throw;
    }
  } catch (const halo::OutputClosed&) {
    return 1;
  } catch (const halo::UsageError& error) {
    return fail(2, error.what());
  } catch (const halo::Stopped& error) {
    return fail(3, error.what());
  } catch (const halo::GateFailed& error) {
    return fail(4, error.what());
  } catch (const halo::DoesNotFit& error) {
    return fail(4, error.what());
  } catch (const halo::RankLost& error) {
    return fail(5, error.what());
  } catch (const halo::GroupEnded& ended) {  // said by the rank that it began with
    return ended.code();
  } catch (const c10::OutOfMemoryError&) {
    return fail(1, kOutOfMemory);
  } catch (const c10::Error& error) {
    // The CPU's allocator has no type of error of its own, nor have sizes beyond 64 bits.
    const std::string what = error.what_without_backtrace();
    const auto says = [&](const char* words) { return what.find(words) != std::string::npos; };
    return fail(1, says("DefaultCPUAllocator") || says("Storage size calculation overflowed")
                       ? kOutOfMemory
                       : what);
  } catch (const std::bad_alloc&) {
    return fail(1, kOutOfMemory);
  } catch (const std::length_error&) {  // more than a container can hold
    return fail(1, kOutOfMemory);
  } catch (const std::filesystem::filesystem_error& error) {
    return fail(1, fmt::format("{}: {}", error.path1().string(), error.code().message()));
  } catch (const boost::system::system_error& error) {  // its what() has places in sources
    return fail(1, error.code().message());
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  halo::open_standard_files();
  wait_passively(argv);
  leave_talking_to_the_first_rank();
  halo::install_stop_handler([](const std::string& signal) {
    if (isatty(STDERR_FILENO) != 0) std::cerr << "\n";  // behind what stands there
    fail(3, fmt::format("stopped by {}; what was not finished is not kept", signal));
    _exit(3);
  });
  CLI::App app(
      "halo turns a pretrained Transformer into a HypeNet: a few attention layers, many\n"
      "Lightning-attention layers, a million tokens of context.",
      "halo");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(halo::version_line()));
  halo::add_init(app);
  halo::add_convert(app);
  halo::add_runs(app);
  halo::add_sweep(app);
  halo::add_pretrain(app);
  halo::add_data(app);
  halo::add_eval(app);
  halo::add_logits(app);
  halo::add_generate(app);
  halo::add_chat(app);
  halo::add_serve(app);
  halo::add_tokenize(app);
  halo::add_import(app);
  halo::add_export(app);
  halo::add_quantize(app);
  halo::add_inspect(app);
  halo::add_plan(app);
  halo::add_launch(app);
  halo::add_report(app);
  halo::add_bench(app);
  halo::add_doctor(app);
  halo::add_documentation(app);
  refuse_empty_words(app);
  // Standard output is for results alone.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("halo"));
  spdlog::set_pattern("halo: %l: %v");
  const halo::CheckedOutput output;
  return run(app, argc, argv);
}
