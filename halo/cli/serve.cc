// halo serve: a model behind OpenAI's API, until a signal ends it.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <thread>

#include "ATen/core/grad_mode.h"
#include "halo/base/options.h"
#include "halo/base/progress.h"
#include "halo/base/settings_io.h"
#include "halo/base/stop.h"
#include "halo/base/text.h"
#include "halo/cli/commands.h"
#include "halo/pipeline/run_folder.h"
#include "halo/runtime/machine.h"
#include "halo/server/service.h"

namespace halo {
namespace {

using Clock = std::chrono::steady_clock;

struct Args {
  std::string model;
  ServiceSettings service;
  int64_t max_context = 0, max_running = 64, prefill_chunk = 0;
  double memory = 0, prefill_share = 0.8;
  EngineRecipe engine;
  MachineRecipe machine;

  void settings(Settings& s) {
    service.settings(s);
    s("max_context", max_context,
      {.help =
           "tokens of a prompt and its answer at most; 0: what the model was made for, or for a "
           "HypeNet what fits",
       .max = 1e9});
    s("memory", memory,
      {.help = "GB for keys, values and states; 0: half of the machine's", .max = 1e6});
    s("max_running", max_running, {.help = "answers that grow at a time", .min = 1, .max = 4096});
    s("prefill_chunk", prefill_chunk,
      {.help = "tokens of prompts that are read at a time, at most; 0: 512, on a GPU 8,192",
       .max = 1e6});
    s("prefill_share", prefill_share,
      {.help = "time for prompts between two steps of those that answer, for each prompt that "
               "waits, by that of a step: at 1 answers come half as fast beside one; 0: until the "
               "tokens that are read at a time have been",
       .max = 1e3});
    engine.settings(s);
    machine.settings(s);
  }
};

SchedulerOptions options_of(const Args& args, const Machine& machine, const ModelConfig& config) {
  SchedulerOptions out = scheduler_options(machine, args.engine);
  if (args.memory > 0) out.memory_bytes = static_cast<int64_t>(args.memory * 1e9);
  out.context = args.max_context;
  if (out.context == 0 && !config.is_hypenet()) out.context = config.max_position_embeddings;
  out.max_running = args.max_running;
  if (args.prefill_chunk > 0) out.prefill_chunk = args.prefill_chunk;
  out.prefill_share = args.prefill_share;
  return out;
}

// Drives the scheduler on a thread of its own.
class Driver {
 public:
  explicit Driver(Scheduler& scheduler)
      : thread_([this, &scheduler](const std::stop_token& stop) {
          const at::NoGradGuard no_grad;
          try {
            scheduler.run(stop);
          } catch (...) {
            fault_ = std::current_exception();
            failed_ = true;
          }
        }) {}
  void check() const {
    if (failed_) std::rethrow_exception(fault_);
  }

 private:
  std::exception_ptr fault_;
  std::atomic<bool> failed_ = false;
  std::jthread thread_;
};

// What malloc holds free goes back to the machine between answers: pieces of requests that are gone
// lie between pieces that stay, beginnings of prompts, and their pages would never be given back.
class SpareMemory {
 public:
  void give_back() {
    const std::clock_t used = std::clock();  // of the processor: whether anything was done
    if (Clock::now() < next_ || used - used_ < CLOCKS_PER_SEC / 20) return;
    malloc_trim(0);
    used_ = std::clock();
    next_ = Clock::now() + std::chrono::seconds(10);
  }

 private:
  std::clock_t used_ = std::clock();
  Clock::time_point next_ = Clock::now();
};

void wait_a_moment(Service& service, const Driver& driver) {
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  service.tick();
  driver.check();
}

void announce(const Args& args, const Service& service, const ServedModel& model,
              const Scheduler& scheduler, const SchedulerOptions& options) {
  const bool is_address6 = args.service.host.find(':') != std::string::npos;
  say(fmt::format("serve: {} at http://{}:{}", model.name(),
                  is_address6 ? "[" + args.service.host + "]" : args.service.host, service.port()));
  say(fmt::format("serve: context {} tokens; {:.1f} GB for keys, values and states{}",
                  scheduler.context(), static_cast<double>(options.memory_bytes) / 1e9,
                  model.has_chat() ? "" : "; no chat template: texts alone are continued"));
  const StateBytes bytes = state_bytes(scheduler.engine().weights(), 1, options.kv_type);
  say(fmt::format(
      "serve: beginnings of prompts are {}; one kept costs {:.2f} MB and {:.1f} KB a token",
      options.reuse_prefixes ? "reused" : "not reused", static_cast<double>(bytes.slot) / 1e6,
      static_cast<double>(bytes.block) / 1e3));
  if (const std::string warning = service.warning(); !warning.empty()) warn(warning);
}

// Told to end, and done.
struct Ended {};

void serve(const Args& args) {
  mallopt(M_ARENA_MAX, 1);  // of others malloc_trim leaves the ends
  if (const std::string why = why_stale(args.model); !why.empty()) warn(why);
  const Machine machine = open_machine(args.machine);
  const Model weights =
      load_model(args.model, ParameterStore::Use::kFrozen, machine.compute, machine.device);
  const ServedModel model(args.model, weights.config, args.service.alias);
  const SchedulerOptions options = options_of(args, machine, weights.config);
  Scheduler scheduler(std::make_shared<DecoderWeights>(weights.weights), options);
  Service service(model, scheduler, args.service, args.max_running);
  const Driver driver(scheduler);
  announce(args, service, model, scheduler, options);
  const StopLater later("serve: what runs is answered");
  SpareMemory spare;
  while (!stop_requested()) {
    wait_a_moment(service, driver);
    if (service.is_idle()) spare.give_back();
  }
  service.start_draining();
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(args.service.drain_seconds));
  while (!service.is_idle() && Clock::now() < end) wait_a_moment(service, driver);
  throw Ended();  // past `later`, which would take a return for a command that did not hear
}

void run(const Args& args) {
  try {
    serve(args);
  } catch (const Ended&) {
    say("serve: ended");
  }
}

}  // namespace

void add_serve(CLI::App& app) {
  auto args = std::make_shared<Args>();
  CLI::App* command =
      app.add_subcommand("serve", "Serve a model over HTTP, by OpenAI's API and with a page");
  command->add_option("model", args->model, "Hugging Face directory")->required();
  // Before the other options, which go over it.
  command
      ->add_option_function<std::string>(
          "--config",
          [args](const std::string& file) {
            read_toml(settings_of(*args), read_text_file(file), file);
          },
          "TOML file with these options as keys; the environment's HALO_PORT and the like, and "
          "options, go over it")
      ->envname("HALO_CONFIG");
  add_options(*command, *args);
  for (const Setting& setting : settings_of(*args).all()) {
    const std::string option = option_name(setting);
    std::string name = "HALO_" + option.substr(2);
    std::ranges::replace(name, '-', '_');
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::toupper(c); });
    command->get_option(option)->envname(name);
  }
  command->footer("Example: halo serve runs/demo/model --port 8080");
  // With it CLI11 asks the environment for this command's options where it is the one that runs.
  command->parse_complete_callback([] {});
  command->callback([args] { run(*args); });
}

}  // namespace halo
