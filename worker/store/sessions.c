/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "worker/store/fate.h"
#include "worker/store/repo.h"

const char *store_fate_name(enum store_fate fate)
{
    static const char *const names[] = {
        [STORE_FATE_NONE] = "none",
        [STORE_FATE_OPEN] = "open",
        [STORE_FATE_COMMITTED] = "committed",
        [STORE_FATE_REVOKED] = "revoked",
    };
    return names[fate];
}

static bool is_announced(const struct store *store, const char *id, bool *ret, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("sessions/%s", id);
    struct stat st;
    *ret = fstatat(store->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
    return *ret || errno == ENOENT || err_set_errno(err, errno, "look at '%s'", path);
}

bool store_session_fate(struct store *store, const char *session_id, enum store_fate *ret_fate,
                        struct err *err)
{
    struct fate fate;
    bool announced = false;
    if (!session_id_is_valid(session_id))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.100s' is no session id", session_id);
    /* The announcement first: it goes after the fate has come. */
    if (!is_announced(store, session_id, &announced, err) ||
        !fate_read(store->dirfd, session_id, &fate, err))
        return err_wrap(err, "fate of session %s", session_id);
    *ret_fate = fate.kind == FATE_COMMIT ? STORE_FATE_COMMITTED
                : fate_is_death(&fate)   ? STORE_FATE_REVOKED
                : announced              ? STORE_FATE_OPEN
                                         : STORE_FATE_NONE;
    return true;
}
