// A connection to the database: its tables made and checked, what goes wrong as values, and its
// statements compiled once, since to compile one costs more than to run it. Thread-safe.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "store/base/error.h"

namespace kilnfs {

class SqliteConnection {
 public:
  /// Makes what is missing. Throws SQLite::Exception: corrupt, of a newer version, or as SQLite
  /// does.
  explicit SqliteConnection(const std::string& file);
  static int errnoOf(const SQLite::Exception& e);

 protected:
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
  /// Names in trees are any bytes, not text.
  struct Blob {
    const std::string& bytes;
  };

  /// Runs `fn`, which uses the database; `what` says for what.
  template <class Fn>
  auto guarded(const std::string& what, Fn fn) -> Expected<decltype(fn())> {
    const std::lock_guard lock(mutex_);
    try {
      return fn();
    } catch (const SQLite::Exception& e) {
      return fail(errnoOf(e), fmt::format("database: {}: {}", what, e.what()));
    }
  }

  /// The same, as a whole or not at all.
  template <class Fn>
  Status inTransaction(const std::string& what, Fn fn) {
    auto done = guarded(what, [&] {
      SQLite::Transaction transaction(db_);
      fn();
      transaction.commit();
      return true;
    });
    return done ? Status() : Status(Failure(done.error()));
  }

  // In such a `fn` only:

  /// To be bound anew as a whole. One use of a statement ends before the next begins.
  Use use(const std::string& sql) {
    return Use(statements_.try_emplace(sql, db_, sql).first->second);
  }
  /// Gives how many rows were changed.
  template <class... Args>
  int run(const char* sql, const Args&... args) {
    const auto statement = use(sql);
    int n = 0;
    (bindOne(*statement, ++n, args), ...);
    return statement->exec();
  }

 private:
  void checkWhole();
  void checkVersion();

  static void bindOne(SQLite::Statement& s, int n, const std::optional<std::string>& v) {
    if (v) {
      s.bind(n, *v);
    } else {
      s.bind(n);
    }
  }
  static void bindOne(SQLite::Statement& s, int n, const Blob& v) {
    s.bind(n, v.bytes.data(), static_cast<int>(v.bytes.size()));
  }
  static void bindOne(SQLite::Statement& s, int n, const std::string& v) { s.bind(n, v); }
  static void bindOne(SQLite::Statement& s, int n, int64_t v) { s.bind(n, v); }

  std::mutex mutex_;
  SQLite::Database db_;                                  // guarded by mutex_, as what follows
  std::map<std::string, SQLite::Statement> statements_;  // by their text
};

}  // namespace kilnfs
