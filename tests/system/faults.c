/* Makes one call of the C library fail: a library for LD_PRELOAD, built by faults.py, which tells how it is used.

   Only calls about paths with the fleet's mark in them count, and forks of the fleet's processes. All processes share one
   page of memory with the test, which arms it and reads there what was called: see `struct shared` and faults.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#undef open
#undef openat
#undef open64
#undef openat64

enum kind { OPEN, CREATE, WRITE, RENAME, FSYNC, MOUNT, FORK, MKDIR, UNLINK, LINK };
static const char *const KINDS[] = {"open", "create", "write", "rename", "fsync", "mount", "fork", "mkdir", "unlink", "link"};

enum { LINES = 8192, WIDTH = 248 };

struct shared {
    _Atomic int32_t armed;   /* 1: count, and fail the chosen call */
    _Atomic int32_t nth;     /* the first call that fails, from 1; 0: none */
    _Atomic int32_t lasting; /* 1: all later ones fail, too */
    _Atomic int32_t error;   /* errno */
    _Atomic uint32_t kinds;  /* bits of the kinds that fail after the first; all count */
    _Atomic int32_t counted;
    _Atomic int32_t failed;
    _Atomic int32_t lines;   /* how many of `line` were taken */
    char line[LINES][WIDTH];
};

static struct shared *shared;
static const char *mark;
static pid_t self;
static char role[32];

static long raw_pid(void) {
    static long (*call)(long, ...);
    if (!call)
        call = dlsym(RTLD_NEXT, "syscall");
    return call(SYS_getpid);
}

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULTS_FILE");
    char text[512];
    mark = getenv("FAULTS_MARK");
    self = raw_pid();
    if (!file || !mark || !*mark)
        return;
    mark = strdup(mark);
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    void *memory = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    for (ssize_t at = 0; at < length; at++)
        if (!text[at])
            text[at] = ' ';
    text[length > 0 ? length : 0] = 0;
    const char *found = strstr(text, "lxcfleet.launcher") ? "launcher" : strstr(text, "booter.py") ? "booter"
        : strstr(text, "lxcfleetd") ? "daemon" : "program";
    strcpy(role, found);
    if (memory != MAP_FAILED)
        shared = memory;
}

/* Whether this call is to fail: then errno is set. */
static int fails(enum kind kind, const char *path, const char *second) {
    struct shared *s = shared;
    if (!s || !s->armed)
        return 0;
    if (kind != FORK && !(path && strstr(path, mark)) && !(second && strstr(second, mark)))
        return 0;
    if (path && strstr(path, "/daemon.log")) /* the log is what the trial is judged by */
        return 0;
    if (path && !strncmp(path, "/sys/", 5)) /* no disk is there that could be full or ill */
        return 0;
    int before = errno;
    int number = atomic_fetch_add(&s->counted, 1) + 1;
    int failing = s->nth && (number == s->nth || (s->lasting && number > s->nth && s->kinds & 1u << kind));
    int line = atomic_fetch_add(&s->lines, 1);
    if (line < LINES)
        snprintf(s->line[line], WIDTH, "%d %s%s %s %s%s%s%s", number, role, raw_pid() == self ? "" : "'", KINDS[kind],
                 path ? path : "", second ? " -> " : "", second ? second : "", failing ? " FAILED" : "");
    if (!failing) {
        errno = before;
        return 0;
    }
    atomic_fetch_add(&s->failed, 1);
    errno = s->error;
    return 1;
}

static int known(int fd, char *path, size_t size) {
    char link[40];
    int before = errno;
    if (!shared || !shared->armed)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    errno = before;
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}

/* The whole path of one that may be relative to a directory. */
static const char *whole(int directory, const char *path, char *buffer, size_t size) {
    if (!path || path[0] == '/' || !shared || !shared->armed)
        return path;
    int before = errno;
    if (directory == AT_FDCWD) {
        if (!getcwd(buffer, size))
            buffer[0] = 0;
    } else if (!known(directory, buffer, size))
        buffer[0] = 0;
    errno = before;
    size_t length = strlen(buffer);
    snprintf(buffer + length, size - length, "/%s", path);
    return buffer;
}

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })
#define WRITES (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)
#define HAS_MODE(flags) ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE)
#define KIND(flags) ((flags) & WRITES ? CREATE : OPEN)

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        char buffer[4096]; mode_t mode = 0; \
        if (HAS_MODE(flags)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        if (fails(KIND(flags), whole(AT_FDCWD, path, buffer, sizeof buffer), NULL)) return -1; \
        return REAL(name)(path, flags, mode); }
#define OPENS_AT(name) \
    int name(int directory, const char *path, int flags, ...) { \
        char buffer[4096]; mode_t mode = 0; \
        if (HAS_MODE(flags)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        if (fails(KIND(flags), whole(directory, path, buffer, sizeof buffer), NULL)) return -1; \
        return REAL(name)(directory, path, flags, mode); }

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

/* What a program calls that was compiled with _FORTIFY_SOURCE. */
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }
int __openat_2(int directory, const char *path, int flags) { return openat(directory, path, flags); }
int __openat64_2(int directory, const char *path, int flags) { return openat64(directory, path, flags); }

static int fopen_fails(const char *path, const char *mode) {
    char buffer[4096];
    return fails(strpbrk(mode, "wa+") ? CREATE : OPEN, whole(AT_FDCWD, path, buffer, sizeof buffer), NULL);
}
FILE *fopen(const char *path, const char *mode) { return fopen_fails(path, mode) ? NULL : REAL(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return fopen_fails(path, mode) ? NULL : REAL(fopen64)(path, mode); }

static int fd_fails(enum kind kind, int fd) {
    char path[4096];
    return known(fd, path, sizeof path) && fails(kind, path, NULL);
}
ssize_t write(int fd, const void *data, size_t size) { return fd_fails(WRITE, fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fd_fails(WRITE, fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
int ftruncate64(int fd, off64_t size) { return fd_fails(WRITE, fd) ? -1 : REAL(ftruncate64)(fd, size); }
int fsync(int fd) { return fd_fails(FSYNC, fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fd_fails(FSYNC, fd) ? -1 : REAL(fdatasync)(fd); }

static int two_fail(enum kind kind, int from, const char *old, int to, const char *new) {
    char first[4096], second[4096];
    return fails(kind, whole(from, old, first, sizeof first), whole(to, new, second, sizeof second));
}
int rename(const char *old, const char *new) {
    return two_fail(RENAME, AT_FDCWD, old, AT_FDCWD, new) ? -1 : REAL(rename)(old, new);
}
int renameat(int from, const char *old, int to, const char *new) {
    return two_fail(RENAME, from, old, to, new) ? -1 : REAL(renameat)(from, old, to, new);
}
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return two_fail(RENAME, from, old, to, new) ? -1 : REAL(renameat2)(from, old, to, new, flags);
}
int link(const char *old, const char *new) {
    return two_fail(LINK, AT_FDCWD, old, AT_FDCWD, new) ? -1 : REAL(link)(old, new);
}
int linkat(int from, const char *old, int to, const char *new, int flags) {
    return two_fail(LINK, from, old, to, new) ? -1 : REAL(linkat)(from, old, to, new, flags);
}

static int one_fails(enum kind kind, int directory, const char *path) {
    char buffer[4096];
    return fails(kind, whole(directory, path, buffer, sizeof buffer), NULL);
}
int symlink(const char *to, const char *path) { return one_fails(LINK, AT_FDCWD, path) ? -1 : REAL(symlink)(to, path); }
int symlinkat(const char *to, int directory, const char *path) {
    return one_fails(LINK, directory, path) ? -1 : REAL(symlinkat)(to, directory, path);
}
int mknod(const char *path, mode_t mode, dev_t device) {
    return one_fails(LINK, AT_FDCWD, path) ? -1 : REAL(mknod)(path, mode, device);
}
int mknodat(int directory, const char *path, mode_t mode, dev_t device) {
    return one_fails(LINK, directory, path) ? -1 : REAL(mknodat)(directory, path, mode, device);
}
int mkdir(const char *path, mode_t mode) { return one_fails(MKDIR, AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int directory, const char *path, mode_t mode) {
    return one_fails(MKDIR, directory, path) ? -1 : REAL(mkdirat)(directory, path, mode);
}
int unlink(const char *path) { return one_fails(UNLINK, AT_FDCWD, path) ? -1 : REAL(unlink)(path); }
int unlinkat(int directory, const char *path, int flags) {
    return one_fails(UNLINK, directory, path) ? -1 : REAL(unlinkat)(directory, path, flags);
}
int rmdir(const char *path) { return one_fails(UNLINK, AT_FDCWD, path) ? -1 : REAL(rmdir)(path); }

int mount(const char *from, const char *to, const char *type, unsigned long flags, const void *data) {
    static int (*real)(const char *, const char *, const char *, unsigned long, const void *);
    if (!real)
        real = dlsym(RTLD_NEXT, "mount");
    return two_fail(MOUNT, AT_FDCWD, from, AT_FDCWD, to) ? -1 : real(from, to, type, flags, data);
}

pid_t fork(void) { return fails(FORK, "", NULL) ? -1 : REAL(fork)(); }
/* A wrapper of vfork can't return twice on one stack; fork may stand for it. */
pid_t vfork(void) { return fork(); }

int clone(int (*function)(void *), void *stack, int flags, void *argument, ...) {
    va_list rest;
    va_start(rest, argument);
    pid_t *parent = va_arg(rest, pid_t *);
    void *tls = va_arg(rest, void *);
    pid_t *child = va_arg(rest, pid_t *);
    va_end(rest);
    if (fails(FORK, "", NULL))
        return -1;
    return REAL(clone)(function, stack, flags, argument, parent, tls, child);
}

long syscall(long number, ...) {
    static long (*real)(long, ...);
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int at = 0; at < 6; at++)
        a[at] = va_arg(rest, long);
    va_end(rest);
    if (!real)
        real = dlsym(RTLD_NEXT, "syscall");
    int failing = 0;
    if (number == SYS_open_tree || number == SYS_openat2)
        failing = one_fails(number == SYS_openat2 ? OPEN : MOUNT, a[0], (const char *)a[1]);
    else if (number == SYS_move_mount)
        failing = two_fail(MOUNT, a[0], (const char *)a[1], a[2], (const char *)a[3]);
    else if (number == SYS_renameat2)
        failing = two_fail(RENAME, a[0], (const char *)a[1], a[2], (const char *)a[3]);
    else if (number == SYS_clone || number == SYS_clone3)
        failing = fails(FORK, "", NULL);
    return failing ? -1 : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
