// Control text is written by strangers: understanding it must never crash, and quoting the words
// that were understood and splitting them again must give the same words.
#include <cstdint>
#include <cstdlib>

#include "store/control/command.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto commands = kilnfs::splitCommands(text);
  if (!commands) return 0;
  for (const kilnfs::Words& words : *commands) {
    const auto again = kilnfs::splitCommands(kilnfs::joinWords(words));
    if (!again || again->size() != 1 || again->front() != words) std::abort();
    const auto command = kilnfs::parseCommand(words);
    // A message must stay on its line and name a reason.
    if (!command && (command.error().code == 0 || command.error().message.empty() ||
                     command.error().message.find('\n') != std::string::npos)) {
      std::abort();
    }
  }
  return 0;
}
