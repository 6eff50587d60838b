/* A machine at fault, to be preloaded into the program under test.
 *
 * POL_TEST_FSYNC_AFTER=N   fsync and fdatasync fail with EIO after N of them
 * POL_TEST_CLOCK=jump      every reading of a clock jumps: by hours, forwards and backwards
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int fails(void) {
    static long made = 0;
    const char *after = getenv("POL_TEST_FSYNC_AFTER");
    return after != NULL && __sync_fetch_and_add(&made, 1) >= atol(after);
}

static int synced(const char *name, int file) {
    if (fails()) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return synced("fsync", file); }

int fdatasync(int file) { return synced("fdatasync", file); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    static long readings = 0;
    int (*real)(clockid_t, struct timespec *) =
        (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    const char *how = getenv("POL_TEST_CLOCK");
    if (result == 0 && how != NULL && strcmp(how, "jump") == 0) {
        long reading = __sync_fetch_and_add(&readings, 1);
        time->tv_sec += (reading % 3 - 1) * 3600 * (reading % 50);
        if (time->tv_sec < 0) {
            time->tv_sec = 0;
        }
    }
    return result;
}
