/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-writer: the guest of a sandbox VM, an NBD client that writes what pattern.h says.
 *
 * One thread, one write outstanding. A failed write or flush is repeated until it works; a lost
 * connection is made again. It may be killed at any instant: the state file says where to go on.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "tests/sandbox/guest/guest.h"
#include "tests/sandbox/guest/pattern.h"

enum { RETRY_MIN_MS = 20, RETRY_MAX_MS = 1000, FLUSH_EVERY = 16, IDLE_MS = 1000 };

struct writer {
    struct pattern_spec spec;
    const char *uris[PATTERN_DISKS_MAX];
    struct nbd_handle *nbd[PATTERN_DISKS_MAX]; /* NULL = not connected */
    struct guest_state state;
    int state_fd, control_fd;
    bool frozen;
    unsigned flush_every;
    uint64_t count;      /* stop after this number; 0 = never */
    int64_t interval_us; /* between writes */
};

/* --- State
 * ------------------------------------------------------------------------------------------ */

static void save_state(struct writer *w)
{
    struct err err = ERR_INIT;
    if (!guest_state_write(w->state_fd, &w->state, &err)) {
        log_err(LOG_LEVEL_ERROR, "state_not_written", &err);
        exit(EXIT_FAILURE);
    }
}

static void set_phase(struct writer *w, enum guest_phase phase)
{
    if (w->state.phase == phase)
        return;
    w->state.phase = phase;
    save_state(w);
}

/* --- Connections
 * ------------------------------------------------------------------------------------ */

static void disconnect(struct writer *w, size_t disk)
{
    nbd_close(w->nbd[disk]);
    w->nbd[disk] = NULL;
}

static bool try_connect(struct writer *w, size_t disk)
{
    struct nbd_handle *nbd = nbd_create();
    if (nbd && nbd_connect_uri(nbd, w->uris[disk]) == 0) {
        w->nbd[disk] = nbd;
        return true;
    }
    nbd_close(nbd);
    return false;
}

static bool is_connected(const struct writer *w, size_t disk)
{
    return w->nbd[disk] && !nbd_aio_is_dead(w->nbd[disk]) && !nbd_aio_is_closed(w->nbd[disk]);
}

/* Try to have all disks; true when they are. `ret_fresh`: a connection was made anew. */
static bool connect_all(struct writer *w, bool *ret_fresh)
{
    for (size_t i = 0; i < w->spec.disk_count; i++) {
        if (is_connected(w, i))
            continue;
        disconnect(w, i);
        *ret_fresh = true;
        if (!try_connect(w, i))
            return false;
    }
    return true;
}

static bool flush_all(struct writer *w)
{
    for (size_t i = 0; i < w->spec.disk_count; i++) {
        if (!is_connected(w, i) || nbd_flush(w->nbd[i], 0) != 0)
            return false;
    }
    w->state.flushed = w->state.acked;
    return true;
}

/* --- Writes
 * ----------------------------------------------------------------------------------------- */

static bool do_write(struct writer *w, uint64_t n)
{
    struct pattern_write at = pattern_write_at(&w->spec, n);
    struct nbd_handle *nbd = w->nbd[at.disk];
    if (at.kind != PATTERN_RECORD)
        return nbd_zero(nbd, at.block_count * PATTERN_BLOCK, at.block * PATTERN_BLOCK, 0) == 0;
    unsigned char block[PATTERN_BLOCK];
    pattern_record(&w->spec, n, block);
    return nbd_pwrite(nbd, block, sizeof block, at.block * PATTERN_BLOCK, 0) == 0;
}

/* Whether a later write than n, up to `last`, hits that block. */
static bool is_overwritten(const struct writer *w, size_t disk, uint64_t block, uint64_t n,
                           uint64_t last)
{
    for (uint64_t later = n + 1; later <= last; later++) {
        struct pattern_write at = pattern_write_at(&w->spec, later);
        if (at.disk == disk && block >= at.block && block < at.block + at.block_count)
            return true;
    }
    return false;
}

/* Whether the blocks of write n hold what it put there, as far as no later write up to `last`, the
 * one under way, has hit them: a long zero write can be lost but for one block. */
static bool is_there(struct writer *w, uint64_t n, uint64_t last, bool *ret_there)
{
    struct pattern_write at = pattern_write_at(&w->spec, n);
    unsigned char found[PATTERN_BLOCK], wanted[PATTERN_BLOCK] = {0};
    if (at.kind == PATTERN_RECORD)
        pattern_record(&w->spec, n, wanted);
    for (uint64_t block = at.block; block < at.block + at.block_count; block++) {
        if (is_overwritten(w, at.disk, block, n, last))
            continue;
        if (nbd_pread(w->nbd[at.disk], found, sizeof found, block * PATTERN_BLOCK, 0) != 0)
            return false;
        *ret_there = *ret_there && memcmp(found, wanted, sizeof found) == 0;
    }
    return true;
}

/*
 * After a new connection: the daemon may have been killed, and writes since the last flush lost
 * with it, any of them. If one is missing, do all of them again. The write that was under way may
 * or may not have been done; it comes next anyway.
 */
static bool recover(struct writer *w)
{
    bool there = true;
    for (uint64_t n = w->state.flushed + 1; there && n <= w->state.acked; n++) {
        if (!is_there(w, n, w->state.acked + 1, &there))
            return false;
    }
    if (there)
        return true;
    log_info("replay", LOG_U64("from", w->state.flushed + 1), LOG_U64("to", w->state.acked));
    set_phase(w, GUEST_REPLAYING);
    for (uint64_t n = w->state.flushed + 1; n <= w->state.acked; n++) {
        if (!do_write(w, n))
            return false;
    }
    return flush_all(w);
}

/* --- Initial content
 * -------------------------------------------------------------------------------- */

static bool fill_chunk(struct writer *w, size_t disk, uint64_t chunk, unsigned char *buffer)
{
    const uint64_t chunk_blocks = PATTERN_CHUNK / PATTERN_BLOCK;
    uint64_t offset = chunk * PATTERN_CHUNK;
    uint64_t len = w->spec.disks[disk].size_bytes - offset;
    len = len < PATTERN_CHUNK ? len : PATTERN_CHUNK;
    memset(buffer, 0, PATTERN_CHUNK);
    for (uint64_t i = 0; i < chunk_blocks; i++)
        (void)pattern_initial(&w->spec, disk, chunk * chunk_blocks + i, buffer + i * PATTERN_BLOCK);
    return nbd_pwrite(w->nbd[disk], buffer, len, offset, 0) == 0;
}

static bool fill_disks(struct writer *w)
{
    SCOPED_FREE unsigned char *buffer = xmalloc(PATTERN_CHUNK);
    for (size_t d = 0; d < w->spec.disk_count; d++) {
        uint64_t size = w->spec.disks[d].size_bytes;
        for (uint64_t c = 0; c * PATTERN_CHUNK < size; c++) {
            if (pattern_chunk_is_filled(&w->spec, d, c) && !fill_chunk(w, d, c, buffer))
                return false;
        }
    }
    return flush_all(w);
}

/* --- Control
 * ---------------------------------------------------------------------------------------- */

static const char *obey(struct writer *w, const char *command)
{
    if (strcmp(command, "thaw\n") == 0) {
        w->frozen = false;
        if (w->state.phase == GUEST_FROZEN)
            set_phase(w, GUEST_RUNNING);
        return "ok";
    }
    if (strcmp(command, "freeze\n") == 0) {
        if (w->state.phase != GUEST_RUNNING && w->state.phase != GUEST_FROZEN)
            return "error not running";
        if (!flush_all(w))
            return "error cannot flush";
        w->frozen = true;
        set_phase(w, GUEST_FROZEN);
        return "ok";
    }
    return strcmp(command, "status\n") == 0 ? "ok" : "error unknown command";
}

static void serve_control(struct writer *w)
{
    SCOPED_FD int fd = accept4(w->control_fd, NULL, NULL, SOCK_CLOEXEC);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char command[32];
    ssize_t n = fd >= 0 && poll(&p, 1, IDLE_MS) == 1 ? recv(fd, command, sizeof command - 1, 0) : 0;
    if (n <= 0)
        return;
    command[n] = '\0';
    SCOPED_FREE char *answer = xasprintf("%s %" PRIu64 "\n", obey(w, command), w->state.acked);
    (void)!send(fd, answer, strlen(answer), MSG_NOSIGNAL);
}

static int open_control(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        listen(fd, 8) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

static int64_t now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Serve the control socket until `until_us`. */
static void idle(struct writer *w, int64_t until_us)
{
    do {
        int64_t left = until_us - now_us();
        struct timespec t = {.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};
        if (left < 0)
            t = (struct timespec){0};
        struct pollfd p = {.fd = w->control_fd, .events = POLLIN};
        if (ppoll(&p, w->control_fd >= 0 ? 1 : 0, &t, NULL) == 1)
            serve_control(w);
    } while (now_us() < until_us);
}

/* --- The guest's life
 * ------------------------------------------------------------------------------- */

/* One try to get on with life; false when something failed and is to be tried again later. */
static bool step(struct writer *w, bool *fresh)
{
    if (!connect_all(w, fresh))
        return false;
    if (w->state.phase == GUEST_FILLING) {
        if (!fill_disks(w))
            return false;
        set_phase(w, GUEST_REPLAYING);
    }
    if (*fresh) {
        if (!recover(w))
            return false;
        *fresh = false;
    }
    set_phase(w, w->frozen ? GUEST_FROZEN : GUEST_RUNNING);
    if (w->frozen)
        return true;
    uint64_t n = w->state.acked + 1;
    if (n - 1 - w->state.flushed >= w->flush_every && !flush_all(w))
        return false;
    if (!do_write(w, n))
        return false;
    w->state.acked = n;
    save_state(w);
    return true;
}

static bool live(struct writer *w)
{
    bool fresh = true;
    struct backoff backoff = BACKOFF(RETRY_MIN_MS, RETRY_MAX_MS);
    int64_t next = now_us();
    while (w->count == 0 || w->state.acked < w->count) {
        if (step(w, &fresh)) {
            backoff_reset(&backoff);
            next += w->interval_us;
            int64_t now = now_us();
            next = next < now ? now : next; /* what was missed is not made up for */
        } else {
            w->state.errors++;
            log_debug("failed", LOG_STR("why", nbd_get_error()));
            save_state(w);
            next = now_us() + backoff_next_ms(&backoff) * 1000;
        }
        idle(w, w->frozen ? now_us() + IDLE_MS * INT64_C(1000) : next);
    }
    while (!flush_all(w)) {
        clock_sleep_ms(clock_system(), backoff_next_ms(&backoff));
        (void)connect_all(w, &fresh);
    }
    set_phase(w, GUEST_DONE);
    return true;
}

/* --- Start
 * ------------------------------------------------------------------------------------------ */

struct args {
    const char *spec, *state, *control;
    const char *disks[PATTERN_DISKS_MAX];
    size_t disk_count;
    double rate;
    unsigned flush_every;
    uint64_t count;
    bool fill;
};

static const struct argp_option options[] = {
    {"spec", 's', "FILE", 0, "What to write, as JSON", 0},
    {"disk", 'd', "ID=URI", 0, "NBD address of a disk of the spec; once for each", 0},
    {"state", 'S', "FILE", 0, "Where to keep the numbers; taken up when it exists", 0},
    {"control", 'c', "SOCKET", 0, "Take freeze, thaw and status here", 0},
    {"rate", 'r', "N", 0, "Writes a second (0 = as fast as it goes, the default)", 0},
    {"flush-every", 'f', "N", 0, "Flush after N writes (default 16)", 0},
    {"fill", 'F', NULL, 0, "Lay down the initial content first, unless the state says it is there",
     0},
    {"count", 'n', "N", 0, "End after write N", 0},
    {0},
};

static double parse_number(const char *text, double max, struct argp_state *state)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno != 0 || *end != '\0' || end == text || !(value >= 0 && value <= max))
        argp_error(state, "'%s' is not a number from 0 to %.0f", text, max);
    return value;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 's':
        a->spec = arg;
        return 0;
    case 'd':
        if (a->disk_count == PATTERN_DISKS_MAX || !strchr(arg, '='))
            argp_error(state, "--disk takes ID=URI, at most %d times", PATTERN_DISKS_MAX);
        a->disks[a->disk_count++] = arg;
        return 0;
    case 'S':
        a->state = arg;
        return 0;
    case 'c':
        a->control = arg;
        return 0;
    case 'r':
        a->rate = parse_number(arg, 1e6, state);
        return 0;
    case 'f':
        a->flush_every = (unsigned)parse_number(arg, 1e6, state);
        return 0;
    case 'F':
        a->fill = true;
        return 0;
    case 'n':
        a->count = (uint64_t)parse_number(arg, 1e15, state);
        return 0;
    case ARGP_KEY_END:
        if (!a->spec || !a->state || a->disk_count == 0)
            argp_error(state, "--spec, --state and --disk are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options, parse_option,
    NULL,    "A guest of the sandbox: writes numbered records to a VM's disks over NBD, for ever.",
    NULL,    NULL,
    NULL};

static bool place_disks(struct writer *w, const struct args *args, struct err *err)
{
    for (size_t i = 0; i < args->disk_count; i++) {
        const char *equals = strchr(args->disks[i], '=');
        SCOPED_FREE char *id = xstrndup(args->disks[i], (size_t)(equals - args->disks[i]));
        size_t disk = pattern_find_disk(&w->spec, id);
        if (disk == w->spec.disk_count)
            return err_set(err, ERR_BAD_ARGUMENT, 0, "the spec has no disk '%s'", id);
        w->uris[disk] = equals + 1;
    }
    for (size_t i = 0; i < w->spec.disk_count; i++) {
        if (!w->uris[i])
            return err_set(err, ERR_BAD_ARGUMENT, 0, "no address for disk '%s'",
                           w->spec.disks[i].id);
    }
    return true;
}

static bool load_state(struct writer *w, const struct args *args, struct err *err)
{
    w->state.phase = args->fill ? GUEST_FILLING : GUEST_REPLAYING;
    struct guest_state old;
    if (guest_state_read(args->state, &old, err)) {
        w->state = old;
        if (old.phase != GUEST_FILLING)
            w->state.phase = GUEST_REPLAYING;
    } else if (err->code != ERR_NOT_FOUND) {
        return false;
    }
    err_clear(err);
    w->state_fd = open(args->state, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (w->state_fd < 0)
        return err_set_errno(err, errno, "state file '%s'", args->state);
    return guest_state_write(w->state_fd, &w->state, err);
}

static bool set_up(struct writer *w, const struct args *args, struct err *err)
{
    if (!pattern_spec_load(args->spec, &w->spec, err) || !place_disks(w, args, err) ||
        !load_state(w, args, err))
        return false;
    w->flush_every = args->flush_every > 0 ? args->flush_every : FLUSH_EVERY;
    w->interval_us = args->rate > 0 ? (int64_t)(1e6 / args->rate) : 0;
    w->count = args->count;
    if (!args->control)
        return true;
    w->control_fd = open_control(args->control);
    return w->control_fd >= 0 || err_set_errno(err, errno, "control socket '%s'", args->control);
}

int main(int argc, char **argv)
{
    struct args args = {0};
    if (argp_parse(&parser, argc, argv, 0, NULL, &args) != 0)
        return EXIT_FAILURE;
    (void)signal(SIGPIPE, SIG_IGN);
    static struct writer w = {.state_fd = -1, .control_fd = -1};
    struct err err = ERR_INIT;
    if (!set_up(&w, &args, &err)) {
        log_err(LOG_LEVEL_ERROR, "writer_not_started", &err);
        return EXIT_FAILURE;
    }
    return live(&w) ? EXIT_SUCCESS : EXIT_FAILURE;
}
