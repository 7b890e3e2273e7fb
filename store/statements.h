// The statements of a database connection: each is compiled at its first use and kept, since to
// compile one costs more than to run it. Not thread-safe.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <map>
#include <string>

namespace kilnfs {

class Statements {
 public:
  /// `database` outlives it.
  explicit Statements(const SQLite::Database& database) : database_(database) {}

  /// A statement in use: at its end it is reset, so that it holds on to nothing in the database.
  class Use {
   public:
    explicit Use(SQLite::Statement& statement) : statement_(statement) {}
    ~Use() { statement_.tryReset(); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    SQLite::Statement& operator*() const { return statement_; }
    SQLite::Statement* operator->() const { return &statement_; }

   private:
    SQLite::Statement& statement_;
  };

  /// To be bound anew as a whole. One use of a statement ends before the next begins.
  Use use(const std::string& sql) {
    return Use(statements_.try_emplace(sql, database_, sql).first->second);
  }

 private:
  const SQLite::Database& database_;
  std::map<std::string, SQLite::Statement> statements_;
};

}  // namespace kilnfs
