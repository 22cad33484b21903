/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/pins.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/id.h"
#include "worker/store/bytes.h"

enum { PINS_VERSION = 1, HEADER_BYTES = 64, POINT_BYTES = 120 };
static const char pins_magic[8] = {'O', 'X', 'B', 'W', 'P', 'I', 'N', 'S'};

uint8_t *pin_encode(const struct pin *pin, const uint8_t repository[16], size_t *ret_len)
{
    size_t len = HEADER_BYTES + POINT_BYTES + pin->n_packs * PACK_ID_BYTES + DIGEST_BYTES;
    uint8_t *out = xcalloc(1, len), *at = out + HEADER_BYTES + POINT_BYTES;
    memcpy(out, pins_magic, sizeof pins_magic);
    put_u32(out + 8, PINS_VERSION);
    memcpy(out + 16, repository, 16);
    put_u32(out + 32, (uint32_t)pin->n_packs);
    memcpy(out + HEADER_BYTES, pin->point, strlen(pin->point));
    for (size_t i = 0; i < pin->n_packs; i++, at += PACK_ID_BYTES)
        memcpy(at, pin->packs[i], PACK_ID_BYTES);
    digest_sha256(out, len - DIGEST_BYTES, at);
    *ret_len = len;
    return out;
}

static bool decode_point(const uint8_t *in, struct pin *pin, struct err *err)
{
    size_t len = strnlen((const char *)in, POINT_BYTES);
    if (len > STORE_SESSION_ID_MAX)
        return err_set(err, ERR_STORE_CORRUPT, 0, "pins: bad point");
    memcpy(pin->point, in, len);
    pin->point[len] = '\0';
    return len == 0 || id_is_slug(pin->point, STORE_SESSION_ID_MAX) ||
           err_set(err, ERR_STORE_CORRUPT, 0, "pins: bad point");
}

bool pin_decode(const uint8_t *in, size_t len, const uint8_t repository[16], struct pin *ret_pin,
                struct err *err)
{
    if (len < HEADER_BYTES + POINT_BYTES + DIGEST_BYTES ||
        memcmp(in, pins_magic, sizeof pins_magic) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "not a pin");
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(in, len - DIGEST_BYTES, digest);
    if (memcmp(digest, in + len - DIGEST_BYTES, DIGEST_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "pins: wrong digest");
    if (get_u32(in + 8) != PINS_VERSION || get_u32(in + 12) != 0)
        return err_set(err, ERR_STORE_VERSION, 0, "pins made by a newer version");
    if (memcmp(in + 16, repository, 16) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "pins of another repository");
    struct pin pin = {.n_packs = get_u32(in + 32)};
    const uint8_t *at = in + HEADER_BYTES + POINT_BYTES;
    if (len != HEADER_BYTES + POINT_BYTES + (uint64_t)pin.n_packs * PACK_ID_BYTES + DIGEST_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "pins: bad count");
    if (!decode_point(in + HEADER_BYTES, &pin, err))
        return false;
    pin.packs = xcalloc(pin.n_packs + 1, sizeof *pin.packs);
    for (size_t i = 0; i < pin.n_packs; i++, at += PACK_ID_BYTES)
        memcpy(pin.packs[i], at, PACK_ID_BYTES);
    *ret_pin = pin;
    return true;
}

void pin_done(struct pin *pin)
{
    free(pin->packs);
    *pin = (struct pin){0};
}

/* No fsync: it is seen by all once it is closed, and it matters only while we live. */
static bool write_file(int dirfd, const char *path, const uint8_t *bytes, size_t len,
                       struct err *err)
{
    int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, OBJECT_FILE_MODE);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", path);
    bool ok = file_write_full(fd, bytes, len, err) || err_wrap(err, "'%s'", path);
    if (close(fd) != 0 && ok)
        ok = err_set_errno(err, errno, "close '%s'", path);
    return ok;
}

bool pin_put(int dirfd, const uint8_t repository[16], const char *session, unsigned n,
             const struct pin *pin, struct err *err)
{
    size_t len;
    SCOPED_FREE uint8_t *bytes = pin_encode(pin, repository, &len);
    if (len > PINS_BYTES_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "%zu packs are too many for a pin", pin->n_packs);
    SCOPED_FREE char *path = xasprintf("pins/%s.%u", session, n);
    SCOPED_FREE char *temp = xasprintf("pins/.%s.%u.tmp", session, n);
    for (int tries = 0;; tries++) {
        if (!write_file(dirfd, temp, bytes, len, err))
            break;
        if (renameat(dirfd, temp, dirfd, path) == 0)
            return true;
        if (errno != ENOENT || tries == OBJECT_TRIES) { /* ENOENT: swept as a temporary file */
            err_set_errno(err, errno, "rename '%s'", temp);
            break;
        }
    }
    (void)unlinkat(dirfd, temp, 0);
    return false;
}

char *pin_session(char *name)
{
    char *dot = strrchr(name, '.');
    if (!dot || dot == name || dot[1] == '\0' || dot[1 + strspn(dot + 1, "0123456789")] != '\0')
        return NULL;
    *dot = '\0';
    return name;
}
