#include <fcntl.h>

#include "fs/own_nodes.h"

namespace kilnfs {
namespace {

constexpr size_t kTooLong = ControlSession::kLongestWrite + 1;

class ControlHandle : public Handle {
 public:
  ControlHandle(Mount& mount, std::unique_ptr<ControlSession> session)
      : mount_(mount), session_(std::move(session)) {}

  void read(Reply reply, off_t offset, size_t size) override {
    auto session = session_;
    mount_.laterInterruptible(
        std::move(reply), [session, offset, size](Reply held, Interrupt& interrupt) {
          const auto text = session->read(static_cast<uint64_t>(offset), size, interrupt);
          if (!text) return held.error(text.error());
          held.data(std::string_view(*text).substr(0, size));
        });
  }

  void write(Reply reply, const WriteData& data, off_t offset) override {
    auto text = data.copy();
    if (!text) return reply.error(text.error());
    // One byte too much is enough for the session to refuse it, in words.
    if (text->size() > kTooLong) text->resize(kTooLong);
    auto session = session_;
    const Requester who = reply.requester(true);
    mount_.laterInterruptible(
        std::move(reply), [&mount = mount_, session, offset, who, text = std::move(*text)](
                              Reply held, Interrupt& interrupt) {
          const auto done = session->write(static_cast<uint64_t>(offset), text, who, interrupt);
          mount.staleNames.settle();  // what was deleted is to be gone when that is said
          if (!done) return held.error(done.error());
          held.written(text.size());
        });
  }

  // Ending a session may publish leases.
  void closed() override {
    mount_.later([session = std::move(session_)]() mutable { session.reset(); });
  }

 private:
  Mount& mount_;
  std::shared_ptr<ControlSession> session_;  // changed only once nobody else calls
};

class ControlFile : public OwnNode {
 public:
  ControlFile(Mount& mount, uint64_t ino) : mount_(mount), ino_(ino) {}

  struct stat attributes() const override {
    struct stat st = mount_.ownAttributes(ino_ != 0 ? ino_ : number(),
                                          S_IFREG | (mount_.options().controlMode & 0777));
    st.st_gid = mount_.options().controlGid;
    // Who writes by blocks is to write all that may be written at once.
    st.st_blksize = ControlSession::kLongestWrite;
    return st;
  }

  // `> control` truncates, which means nothing here. Its other attributes are the mount's options.
  void setattr(Reply reply, const SetAttributes& wanted, Handle* handle) override {
    if (wanted.mode || wanted.uid || wanted.gid) return reply.error(EPERM);
    getattr(std::move(reply), handle);
  }

  void open(Reply reply, int) override {
    OpenAnswer answer;
    answer.direct = true;
    mount_.answerOpen(std::move(reply),
                      std::make_shared<ControlHandle>(mount_, mount_.control().open()), answer);
  }

 private:
  Mount& mount_;
  const uint64_t ino_;
};

}  // namespace

std::shared_ptr<OwnNode> makeControl(Mount& mount, uint64_t ino) {
  return std::make_shared<ControlFile>(mount, ino);
}

}  // namespace kilnfs
