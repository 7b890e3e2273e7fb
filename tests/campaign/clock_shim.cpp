// LD_PRELOAD: moves the wall clock of a process by the number of seconds in the file that
// $CLOCK_SHIM names, which can change while it runs. For tests only.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>

namespace {

time_t offset() {
  const char* name = std::getenv("CLOCK_SHIM");
  if (name == nullptr) return 0;
  const int fd = ::open(name, O_RDONLY | O_CLOEXEC);
  char text[32] = {};
  if (fd < 0) return 0;
  const ssize_t n = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  return n > 0 ? std::atol(text) : 0;
}

template <class Fn>
Fn real(const char* name) {
  return reinterpret_cast<Fn>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, struct timespec* ts) noexcept {
  static const auto fn = real<int (*)(clockid_t, struct timespec*)>("clock_gettime");
  const int result = fn(clock, ts);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    ts->tv_sec += offset();
  }
  return result;
}

time_t time(time_t* out) noexcept {
  struct timespec ts = {};
  clock_gettime(CLOCK_REALTIME, &ts);
  if (out != nullptr) *out = ts.tv_sec;
  return ts.tv_sec;
}

int gettimeofday(struct timeval* tv, void*) noexcept {
  struct timespec ts = {};
  clock_gettime(CLOCK_REALTIME, &ts);
  *tv = {ts.tv_sec, ts.tv_nsec / 1000};
  return 0;
}
}
