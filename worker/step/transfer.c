/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/transfer.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/transfer.h"
#include "worker/step/strays.h"
#include "worker/step/ticker.h"

enum { KEEP_EVERY_S = 20, READY_LIMIT_MS = 5 * 60 * 1000, END_LIMIT_MS = 15 * 60 * 1000 };

/* Any thread that copies. */
static bool is_stopped(void *ctx, struct err *err)
{
    return run_is_cancelled(ctx) && !err_set(err, ERR_CANCELLED, 0, "the task was stopped");
}

static struct imageio *connect_to(struct task_run *run, const struct ovirt_transfer *t,
                                  uint64_t size_bytes, struct err *err)
{
    const struct engine_conf *engine = engine_session_conf(run->session);
    struct imageio_conf conf = {.url = t->transfer_url,
                                .fallback_url = t->proxy_url,
                                .ca_file = engine->ca_file,
                                .insecure = engine->insecure,
                                .size_bytes = size_bytes,
                                .connect_timeout_ms = engine->connect_timeout_ms,
                                .stopped = is_stopped,
                                .ctx = run,
                                .clock = run->clock};
    return imageio_open(&conf, err);
}

static char *handle_of(const char *disk_id)
{
    return xasprintf(HANDLE_TRANSFER "%s", disk_id);
}

/* The volume may be held by a transfer that an earlier attempt asked for, and that the engine
 * opened only now. */
static char *ask(struct task_run *run, struct ovirt_transfer_spec *spec, struct err *err)
{
    const struct engine_conf *conf = engine_session_conf(run->session);
    const char *snapshot = handles_get(&run->handles, HANDLE_SNAPSHOT);
    int64_t until_ms = clock_mono_ms(run->clock) + conf->busy_budget_ms;
    struct backoff wait = BACKOFF(conf->busy_min_ms, conf->busy_max_ms);
    spec->no_wait = run->offer->attempt > 1 && snapshot;
    char *id = ovirt_transfer_create(run->session, spec, err);
    while (!id && spec->no_wait && err->code == ERR_ENGINE_BUSY &&
           clock_mono_ms(run->clock) < until_ms) {
        struct err stop = ERR_INIT;
        if (!strays_end_transfers_of(run, run->offer->vm, snapshot, spec->disk_id, &stop) ||
            !run_sleep(run, backoff_next_ms(&wait), &stop)) {
            *err = stop;
            return NULL;
        }
        err_clear(err);
        id = ovirt_transfer_create(run->session, spec, err);
    }
    return id;
}

static bool open_by(struct task_run *run, struct ovirt_transfer_spec *spec, uint64_t size_bytes,
                    struct disk_transfer *ret, struct err *err)
{
    const char *disk_id = spec->disk_id;
    SCOPED_FREE char *handle = handle_of(disk_id);
    *ret = (struct disk_transfer){.disk_id = xstrdup(disk_id)};
    ret->id = ask(run, spec, err);
    if (!ret->id)
        return false;
    run_handle_set(run, handle, ret->id);
    struct ovirt_transfer ready = {0};
    if (!ovirt_transfer_wait_ready(run->session, ret->id, READY_LIMIT_MS, &ready, err))
        return err_wrap(err, "transfer of disk %s", disk_id);
    ret->io = connect_to(run, &ready, size_bytes, err);
    ovirt_transfer_done(&ready);
    if (!ret->io)
        return err_wrap(err, "transfer of disk %s", disk_id);
    const struct imageio_ability *can = imageio_ability(ret->io);
    log_info("transfer_opened", LOG_STR("disk", disk_id), LOG_STR("transfer", ret->id),
             LOG_STR("by", can->is_local   ? "unix-socket"
                           : can->is_proxy ? "proxy"
                                           : "host"),
             LOG_U64("connections", can->connections_max));
    return true;
}

bool disk_transfer_open(struct task_run *run, const char *disk_id, const char *image_id,
                        uint64_t size_bytes, struct disk_transfer *ret, struct err *err)
{
    struct ovirt_transfer_spec spec = {
        .is_upload = !image_id, .disk_id = disk_id, .image_id = image_id};
    return open_by(run, &spec, size_bytes, ret, err);
}

bool disk_transfer_open_backup(struct task_run *run, const char *disk_id, const char *backup_id,
                               uint64_t size_bytes, struct disk_transfer *ret, struct err *err)
{
    struct ovirt_transfer_spec spec = {.disk_id = disk_id, .backup_id = backup_id};
    return open_by(run, &spec, size_bytes, ret, err);
}

void disk_transfer_forget(struct disk_transfer *t)
{
    imageio_close(t->io);
    free(t->disk_id);
    free(t->id);
    *t = (struct disk_transfer){0};
}

static bool end(struct task_run *run, struct disk_transfer *t, bool well, struct err *err)
{
    bool ok = true;
    imageio_close(TAKE(t->io)); /* before: the host waits for nobody who is still connected */
    if (t->id) {
        SCOPED_FREE char *handle = handle_of(t->disk_id);
        ok = well ? ovirt_transfer_finalize(run->session, t->id, t->disk_id, END_LIMIT_MS, err)
                  : ovirt_transfer_cancel(run->session, t->id, END_LIMIT_MS, err);
        if (ok)
            run_handle_drop(run, handle);
    }
    disk_transfer_forget(t);
    return ok;
}

bool disk_transfer_finish(struct task_run *run, struct disk_transfer *t, struct err *err)
{
    return end(run, t, true, err);
}

bool disk_transfer_cancel(struct task_run *run, struct disk_transfer *t, struct err *err)
{
    return end(run, t, false, err);
}

bool transfers_cancel_all(struct task_run *run, struct err *err)
{
    size_t failed = 0;
    const struct wire_handle *h;
    while ((h = handles_next(&run->handles, HANDLE_TRANSFER, failed))) {
        struct disk_transfer left = {.disk_id = xstrdup(h->name + strlen(HANDLE_TRANSFER)),
                                     .id = xstrdup(h->value)};
        struct err one = ERR_INIT;
        if (disk_transfer_cancel(run, &left, &one))
            continue;
        err_keep_first(err, &one);
        if (one.code == ERR_LEASE_LOST)
            return false;
        failed++;
    }
    return failed == 0;
}

/* --- Keeping alive --------------------------------------------------------------------------- */
struct transfer_keeper {
    char **ids;
    size_t count;
    struct ticker *ticker;
};

static bool keep_all(void *ctx, struct engine_session *session)
{
    struct transfer_keeper *k = ctx;
    for (size_t i = 0; i < k->count; i++) {
        struct err err = ERR_INIT;
        if (!ovirt_transfer_keep(session, k->ids[i], &err) && err.code != ERR_CANCELLED)
            log_err(LOG_LEVEL_WARN, "transfer_not_kept", &err);
    }
    return true;
}

struct transfer_keeper *transfer_keeper_begin(struct task_run *run, const char *const *ids,
                                              size_t count)
{
    struct transfer_keeper *k = ALLOC_NEW(struct transfer_keeper);
    k->ids = xcalloc(count + 1, sizeof *k->ids);
    for (; k->count < count; k->count++)
        k->ids[k->count] = xstrdup(ids[k->count]);
    k->ticker = ticker_begin(
        run, &(struct ticker_opts){
                 .name = "keeper", .every_s = KEEP_EVERY_S, .tick = keep_all, .ctx = k});
    return k;
}

void transfer_keeper_end(struct transfer_keeper *k)
{
    if (!k)
        return;
    ticker_end(k->ticker);
    for (size_t i = 0; i < k->count; i++)
        free(k->ids[i]);
    free(k->ids);
    free(k);
}
