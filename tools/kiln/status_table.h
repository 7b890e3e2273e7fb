// Answers of the store as text for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kilnfs {

/// The answer to `status` as headings with tables. Shows what it is given: members that this
/// version does not know are shown too.
std::string statusTable(const nlohmann::json& status);

/// "running", or "queued, 3 before it", from an answer to `status`; "waiting" for an unknown id.
std::string buildState(const nlohmann::json& status, const std::string& id);

/// "ID: STATE" for each build in an answer; a table of results, and their sum; else its members but
/// for `ok`, "name: value" a line.
std::string answerText(const nlohmann::json& answer);

}  // namespace kilnfs
