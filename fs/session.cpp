#include "fs/session.h"

#include <spdlog/spdlog.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "fs/connection.h"
#include "fs/dispatch.h"
#include "fs/fuse_requests.h"
#include "fs/guard.h"
#include "fs/own_nodes.h"
#include "fs/request_loop.h"
#include "store/base/process.h"

namespace kilnfs {
namespace {

// Until those who wait for us are cut off when we end.
constexpr std::chrono::seconds kCutOffAfter{20};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

class FuseSession : public Session {
 public:
  FuseSession(Parts parts, const MountOptions& options)
      : options_(options), mount_(parts, options), dispatch_{mount_, {}} {}

  ~FuseSession() override {
    end();
    if (session_ != nullptr) fuse_session_destroy(session_);
  }

  Status start();
  Status serve(std::function<void()> ready) override;
  void stop(int grace) override;

 private:
  Status mount();
  void end();

  const MountOptions options_;
  Mount mount_;
  Dispatch dispatch_;
  fuse_session* session_ = nullptr;
  std::unique_ptr<Connection> connection_;  // null: not mounted
  std::optional<Process> guard_;
  std::unique_ptr<RequestSource> requests_;
  std::unique_ptr<RequestLoop> loop_;
  bool ended_ = false;

  std::mutex mutex_;
  std::condition_variable served_;
  bool serving_ = false;  // guarded by mutex_, as what follows
  bool done_ = false;
};

Status FuseSession::start() {
  std::vector<std::string> words = {
      "kilnfs", "-o", "fsname=" + escaped(options_.source) + ",subtype=kilnfs,default_permissions"};
  for (const std::string& option : options_.fuseOptions) {
    words.insert(words.end(), {"-o", escaped(option)});
  }
  if (options_.debug) words.emplace_back("-d");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  fuse_args args = {static_cast<int>(argv.size()), argv.data(), 0};

  session_ = fuse_session_new(&args, &fuseOperations(), sizeof(fuse_lowlevel_ops), &dispatch_);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return fail(EINVAL, "libfuse refused the mount options");
  mount_.setSession(session_);
  mount_.nodes.remember(NodeRef(makeRoot(mount_)));
  if (auto mounted = mount(); !mounted) return mounted;
  requests_ = fuseRequests(session_);
  loop_ = std::make_unique<RequestLoop>(*requests_);
  return {};
}

Status FuseSession::mount() {
  if (fuse_session_mount(session_, options_.mountpoint.c_str()) != 0) {
    return fail(EIO, "mounting on " + inQuotes(options_.mountpoint) + " failed");
  }
  auto connection = Connection::of(fuse_session_fd(session_), options_.mountpoint);
  if (!connection) {
    fuse_session_unmount(session_);
    return Failure(connection.error());
  }
  connection_ = std::move(*connection);
  if (auto guard = guardMount(options_.guard, *connection_)) {
    guard_ = std::move(*guard);
  } else {
    spdlog::warn("{}", guard.error().message);
  }
  return {};
}

Status FuseSession::serve(std::function<void()> ready) {
  dispatch_.ready = std::move(ready);
  {
    const std::lock_guard lock(mutex_);
    serving_ = true;
  }
  Status result = loop_->run();
  if (!result) {
    // Nobody answers any more, but a worker may wait for the kernel, which waits for an answer.
    if (auto aborted = connection_->abort(); !aborted) spdlog::warn("{}", aborted.error().message);
  }
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  served_.notify_all();
  end();
  return result;
}

void FuseSession::stop(int grace) {
  // Taken away while we still serve, so that the kernel can write back what is mapped.
  if (auto done = connection_->detach(); !done) {
    spdlog::debug("{}", done.error().message);  // somebody else has unmounted it
  }
  std::unique_lock lock(mutex_);
  if (!serving_ ||
      served_.wait_for(lock, std::chrono::milliseconds(grace), [&] { return done_; })) {
    return;
  }
  // While we still serve: whoever tells the kernel something may have to wait for it.
  if (!mount_.finishFor(kCutOffAfter)) {
    // A worker may wait for the kernel, and that for somebody who waits for an answer of ours.
    if (auto aborted = connection_->abort(); !aborted) spdlog::warn("{}", aborted.error().message);
    mount_.finish();
  }
  loop_->stop();
  served_.wait(lock, [&] { return done_; });
}

void FuseSession::end() {
  if (ended_) return;
  ended_ = true;
  mount_.finish();
  if (connection_) {
    fuse_session_exit(session_);  // else libfuse complains of what can't be answered any more
    connection_->giveUp();
  }
  guard_.reset();
  for (const auto& handle : mount_.handles.clear()) handle->abandoned();
  mount_.nodes.clear();
  mount_.finish();                                  // what closing has begun
  if (connection_) fuse_session_unmount(session_);  // closes the descriptor
}

}  // namespace

Expected<std::unique_ptr<Session>> Session::create(Parts parts, const MountOptions& options) {
  auto session = std::make_unique<FuseSession>(parts, options);
  if (auto started = session->start(); !started) return Failure(started.error());
  return session;
}

}  // namespace kilnfs
