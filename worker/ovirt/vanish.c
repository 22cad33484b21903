/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/vanish.h"

#include <string.h>

#include "worker/ovirt/member.h"

struct watch {
    const struct vanish *v;
    bool seen_locked;
    int64_t start_ms;
};

static bool has_failed(struct engine_session *s, const struct watch *w)
{
    if (w->seen_locked)
        return true;
    const struct engine_conf *conf = engine_session_conf(s);
    if (clock_mono_ms(conf->clock) - w->start_ms < conf->settle_ms)
        return false;
    return !w->v->confirm || w->v->confirm(s, w->v->ctx);
}

static enum engine_verdict look(struct engine_session *s, void *ctx, struct err *err)
{
    struct watch *w = ctx;
    json_auto_t *object = NULL;
    if (!engine_get_or_gone(s, w->v->path, NULL, &object, err)) {
        err_wrap(err, "%s", w->v->what);
        return ENGINE_FAILED;
    }
    if (!object)
        return ENGINE_REACHED;
    const char *status = w->v->status_key ? member_str(object, w->v->status_key) : NULL;
    if (!status)
        return ENGINE_AGAIN;
    if (strcmp(status, "locked") == 0) {
        w->seen_locked = true;
        return ENGINE_AGAIN;
    }
    if (!has_failed(s, w))
        return ENGINE_AGAIN;
    err_set(err, w->v->failed_code, 0,
            "%s: the engine could not remove it (its status is '%s' again)", w->v->what, status);
    return ENGINE_FAILED;
}

bool vanish_wait(struct engine_session *s, const struct vanish *v, int64_t limit_ms,
                 struct err *err)
{
    struct watch watch = {.v = v, .start_ms = clock_mono_ms(engine_session_conf(s)->clock)};
    SCOPED_FREE char *what = xasprintf("%s to be gone", v->what);
    return engine_poll(s, what, limit_ms, look, &watch, err);
}

/* Was it done, when the answer was lost? ctx is where the path is. */
static bool probe(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                  struct err *err)
{
    (void)ret_object;
    const char *const *path = ctx;
    json_auto_t *object = NULL;
    if (!engine_get_or_gone(s, *path, NULL, &object, err))
        return false;
    *ret_done = !object;
    return true;
}

bool vanish_ask(struct engine_session *s, const char *path, const char *query, struct err *err)
{
    struct engine_mutation m = {
        .method = ENGINE_DELETE,
        .path = path,
        .query = query,
        .probe = probe,
        .probe_ctx = &path,
        .gone_is_done = true,
    };
    return engine_mutate(s, &m, NULL, err);
}
