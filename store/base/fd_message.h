// Messages that carry descriptors, over a Unix socket. Between the daemon and kiln-supervise, which
// is linked with nothing of the store: hence all in a header.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace kilnfs {

constexpr size_t kMostFdsInMessage = 8;
using FdMessageRoom = std::array<char, CMSG_SPACE(kMostFdsInMessage * sizeof(int))>;

/// Sends `bytes` with `count` descriptors, which the caller keeps. False with errno.
inline bool sendWithFds(int socket, const void* bytes, size_t size, const int* fds, size_t count) {
  struct iovec data = {const_cast<void*>(bytes), size};
  alignas(struct cmsghdr) FdMessageRoom control{};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(count * sizeof(int));
  std::memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  ssize_t n = 0;
  do {
    n = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(size);
}

/// As recvmsg. `count` is the room for descriptors, and then how many came; they are the caller's.
inline ssize_t receiveWithFds(int socket, void* bytes, size_t size, int* fds, size_t& count) {
  struct iovec data = {bytes, size};
  alignas(struct cmsghdr) FdMessageRoom control{};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_LEN(count * sizeof(int));
  count = 0;
  ssize_t n = 0;
  do {
    n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  const struct cmsghdr* header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return n;
  const size_t length = header->cmsg_len - CMSG_LEN(0);
  std::memcpy(fds, CMSG_DATA(header), length);
  count = length / sizeof(int);
  return n;
}

}  // namespace kilnfs
