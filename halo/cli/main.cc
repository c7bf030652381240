// halo: turns a pretrained Transformer into a HypeNet, evaluates and runs it.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/base/progress.h"
#include "halo/cli/commands.h"
#include "halo/cli/version.h"
#include "halo/pipeline/fit.h"

namespace {

// OpenMP reads its settings when it is loaded, before main: spinning at its barriers costs up to
// 40x where a core is shared. So the program starts itself once more with passive waiting.
void wait_passively(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY")) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);  // on failure the command runs as it is, only slower
}

int fail(int code, const std::string& message) {
  std::cerr << "halo: " << message << "\n";
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  wait_passively(argv);
  CLI::App app(
      "halo turns a pretrained Transformer into a HypeNet: a few attention layers, many\n"
      "Lightning-attention layers, a million tokens of context.",
      "halo");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(halo::version_line()));
  halo::add_init(app);
  halo::add_convert(app);
  halo::add_runs(app);
  halo::add_pretrain(app);
  halo::add_data(app);
  halo::add_eval(app);
  halo::add_logits(app);
  halo::add_generate(app);
  halo::add_tokenize(app);
  halo::add_import(app);
  halo::add_export(app);
  halo::add_inspect(app);
  halo::add_plan(app);
  halo::add_report(app);
  halo::add_bench(app);
  halo::add_doctor(app);
  halo::add_documentation(app);
  // Standard output is for results alone.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("halo"));
  spdlog::set_pattern("halo: %l: %v");
  halo::install_stop_handler();
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const halo::UsageError& error) {
    return fail(2, error.what());
  } catch (const halo::Stopped& error) {
    return fail(3, error.what());
  } catch (const halo::GateFailed& error) {
    return fail(4, error.what());
  } catch (const halo::DoesNotFit& error) {
    return fail(4, error.what());
  } catch (const c10::Error& error) {
    return fail(1, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return fail(1, "out of memory; use a shorter sequence or fewer rows at a time");
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}
