#include "fs/fuse_requests.h"

#include <fcntl.h>

#include <cstdlib>

#include "fs/fuse_compat.h"

namespace kilnfs {
namespace {

class FusePlace : public RequestSource::Place {
 public:
  explicit FusePlace(fuse_session* session) : session_(session) {}
  FusePlace(const FusePlace&) = delete;
  FusePlace& operator=(const FusePlace&) = delete;
  ~FusePlace() override { std::free(buffer_.mem); }

  Expected<RequestSource::Taken> take() override {
    const int taken = fuse_session_receive_buf(session_, &buffer_);
    if (taken > 0) return RequestSource::Taken::request;
    // Unmounted, or told to exit.
    if (taken == 0 || fuse_session_exited(session_) != 0) return RequestSource::Taken::end;
    if (taken == -EAGAIN || taken == -EINTR) return RequestSource::Taken::nothing;
    return fail(-taken, "take a request from the kernel");
  }

  void handle() override { fuse_session_process_buf(session_, &buffer_); }

 private:
  fuse_session* const session_;
  fuse_buf buffer_ = {};  // its memory is libfuse's to allocate and ours to free
};

class FuseRequests : public RequestSource {
 public:
  explicit FuseRequests(fuse_session* session) : session_(session) {
    const int flags = ::fcntl(descriptor(), F_GETFL);
    ::fcntl(descriptor(), F_SETFL, flags | O_NONBLOCK);
  }
  std::unique_ptr<Place> place() override { return std::make_unique<FusePlace>(session_); }
  int descriptor() const override { return fuse_session_fd(session_); }

 private:
  fuse_session* const session_;
};

}  // namespace

std::unique_ptr<RequestSource> fuseRequests(fuse_session* session) {
  return std::make_unique<FuseRequests>(session);
}

}  // namespace kilnfs
