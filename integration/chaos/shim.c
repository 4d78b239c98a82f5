/* A clock that jumps and a disk that is slow, for one process: preloaded, told by a file that is mapped.
 *
 * The file ($CHAOS_SHIM) holds two 64-bit numbers: nanoseconds by which this process' wall clock is off, and
 * microseconds by which each fsync is delayed. Monotonic clocks are left alone, as in a real jump. Waits until a time
 * of the wall clock are given back what was added: what we tell is not what the kernel knows. A wait that has begun
 * before a jump is not changed by it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL
#define WALL_SECONDS BILLION /* a deadline later than this is of the wall clock: machines aren't up for 31 years */

static const int64_t still[2];
static const volatile int64_t *told = still;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CHAOS_SHIM");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof still, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        told = mapped;
    close(file);
}

static void shift(struct timespec *when, int64_t by)
{
    int64_t nanoseconds = when->tv_nsec + by % BILLION;
    when->tv_sec += by / BILLION;
    if (nanoseconds < 0)
        nanoseconds += BILLION, when->tv_sec--;
    else if (nanoseconds >= BILLION)
        nanoseconds -= BILLION, when->tv_sec++;
    when->tv_nsec = nanoseconds;
}

static int (*real_clock)(clockid_t, struct timespec *);

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!real_clock)
        real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real_clock(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) && told[0])
        shift(now, told[0]);
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *where)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (where)
        *where = exact.tv_sec;
    return exact.tv_sec;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}

static const struct timespec *given_back(const struct timespec *until, struct timespec *room)
{
    if (!until || !told[0] || until->tv_sec < WALL_SECONDS)
        return until;
    *room = *until;
    shift(room, -told[0]);
    return room;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec room;
    if (!real) /* of two versions, the one of today's condition variables */
        real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real)
        real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return real(condition, mutex, given_back(until, &room));
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    static int (*real)(cnd_t *, mtx_t *, const struct timespec *);
    struct timespec room;
    if (!real)
        real = dlsym(RTLD_NEXT, "cnd_timedwait");
    return real(condition, mutex, given_back(until, &room));
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    static int (*real)(sem_t *, const struct timespec *);
    struct timespec room;
    if (!real)
        real = dlsym(RTLD_NEXT, "sem_timedwait");
    return real(semaphore, given_back(until, &room));
}

static void wait_for_disk(void)
{
    int64_t microseconds = told[1];
    if (microseconds > 0) {
        struct timespec pause = {microseconds / 1000000, microseconds % 1000000 * 1000};
        while (syscall(SYS_nanosleep, &pause, &pause)) /* interrupted: a slow disk isn't */
            ;
    }
}

int fsync(int file)
{
    wait_for_disk();
    return syscall(SYS_fsync, file);
}

int fdatasync(int file)
{
    wait_for_disk();
    return syscall(SYS_fdatasync, file);
}
