#include "tools/bench/step.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <sstream>

namespace kilnfs::bench {

void tellValue(const std::string& figure, double value) {
  fmt::print("value {} {:.9f}\n", figure, value);
}

void tellCheck(const std::string& name, const std::string& text) {
  fmt::print("check {} {}\n", name, text);
}

Samples readSamples(const std::string& output) {
  Samples samples;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind;
    std::string name;
    std::string text;
    words >> kind >> name >> text;
    if (kind == "value") samples.values[name] = std::stod(text);
    if (kind == "check") samples.checks[name] = text;
  }
  return samples;
}

int stepMain(int argc, char** argv) {
  CLI::App app("What kiln-bench runs in the file system that it measures.", "kiln-bench step");
  StepOptions options;
  bool fail = false;
  std::string name;
  app.add_option("name", name)->required();
  app.add_option("--in", options.in);
  app.add_option("--archive", options.archive);
  app.add_option("--files", options.files);
  app.add_option("--bytes", options.bytes);
  app.add_option("--operations", options.operations);
  app.add_flag("--fail", fail);
  CLI11_PARSE(app, argc, argv);
  if (!options.in.empty() && ::chdir(options.in.c_str()) != 0) {
    fmt::print("{}: {}\n", options.in, errnoName(errno));
    return 1;
  }
  Status done = kilnfs::fail(EINVAL, "no such step: " + name);
  if (name == "walk") done = stepWalk(options);
  if (name == "read") done = stepRead(options);
  if (name == "write") done = stepWrite(options);
  if (name == "small") done = stepSmall(options);
  if (name == "work") done = stepWork(options);
  if (done) return fail ? kMeasured : 0;
  fmt::print("{}: {}\n", name, done.error().message);
  return 1;
}

}  // namespace kilnfs::bench
