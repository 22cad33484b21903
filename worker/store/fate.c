/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/fate.h"

#include <inttypes.h>
#include <stdio.h>

#include "worker/store/bytes.h"

static const char *const words[] = {
    [FATE_COMMIT] = "commit", [FATE_REVOKE] = "revoke", [FATE_BEQUEATH] = "bequeath"};

struct fate fate_new(enum fate_kind kind, const uint8_t *point_digest)
{
    struct fate f = {.kind = kind};
    if (point_digest)
        memcpy(f.point_digest, point_digest, DIGEST_BYTES);
    uint8_t token[16];
    random_bytes(token, sizeof token);
    hex_encode(token, sizeof token, f.token);
    return f;
}

size_t fate_encode(const struct fate *fate, char *out)
{
    char digest[2 * DIGEST_BYTES + 1] = "-";
    if (fate->kind == FATE_COMMIT)
        hex_encode(fate->point_digest, DIGEST_BYTES, digest);
    int n = snprintf(out, FATE_TEXT_MAX, "oxbow-fate 1 %s %s %s ", words[fate->kind], digest,
                     fate->token);
    n += snprintf(out + n, FATE_TEXT_MAX - (size_t)n, "%08" PRIx32 "\n", crc32c(out, (size_t)n));
    return (size_t)n;
}

/* The next word of *at, ended by a space, as a string. NULL when there is none. */
static char *next_word(char **at)
{
    char *word = *at;
    char *space = strchr(word, ' ');
    if (!space || space == word)
        return NULL;
    *space = '\0';
    *at = space + 1;
    return word;
}

static bool decode_fields(char *text, struct fate *f)
{
    char *at = text;
    uint8_t token[16];
    const char *magic = next_word(&at), *version = magic ? next_word(&at) : NULL;
    const char *kind = version ? next_word(&at) : NULL, *digest = kind ? next_word(&at) : NULL;
    const char *own = digest ? next_word(&at) : NULL;
    if (!own || *at != '\0' || !hex_decode(own, token, sizeof token))
        return false;
    memcpy(f->token, own, FATE_TOKEN_BYTES);
    f->kind = strcmp(kind, words[FATE_REVOKE]) == 0     ? FATE_REVOKE
              : strcmp(kind, words[FATE_BEQUEATH]) == 0 ? FATE_BEQUEATH
                                                        : FATE_COMMIT;
    if (f->kind != FATE_COMMIT)
        return strcmp(digest, "-") == 0;
    return strcmp(kind, words[FATE_COMMIT]) == 0 &&
           hex_decode(digest, f->point_digest, DIGEST_BYTES);
}

bool fate_decode(const char *text, size_t len, struct fate *ret_fate, struct err *err)
{
    static const char magic[] = "oxbow-fate ";
    char copy[FATE_TEXT_MAX];
    if (len < sizeof magic + 10 || len >= sizeof copy || memchr(text, 0, len) ||
        memcmp(text, magic, sizeof magic - 1) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "not a fate record");
    char crc[10];
    (void)snprintf(crc, sizeof crc, "%08" PRIx32 "\n", crc32c(text, len - 9));
    if (memcmp(text + len - 9, crc, 9) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "fate record: wrong checksum");
    memcpy(copy, text, len);
    copy[len - 9] = '\0';
    if (strncmp(copy + sizeof magic - 1, "1 ", 2) != 0)
        return err_set(err, ERR_STORE_VERSION, 0, "fate record made by a newer version");
    struct fate f = {0};
    if (!decode_fields(copy, &f))
        return err_set(err, ERR_STORE_CORRUPT, 0, "fate record: bad fields");
    *ret_fate = f;
    return true;
}

bool fate_read(int dirfd, const char *session, struct fate *ret_fate, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("fate/%s", session);
    SCOPED_BUF struct buf text;
    if (!object_read(dirfd, path, FATE_TEXT_MAX, &text, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err);
        *ret_fate = (struct fate){.kind = FATE_NONE};
        return true;
    }
    return fate_decode(buf_str(&text), text.len, ret_fate, err) || err_wrap(err, "'%s'", path);
}

bool fate_decide(int dirfd, const char *session, const struct fate *mine, struct fate *ret_stands,
                 enum fate_doubt *ret_doubt, struct err *err)
{
    char text[FATE_TEXT_MAX];
    size_t len = fate_encode(mine, text);
    struct fate stands = {.kind = FATE_NONE};
    *ret_doubt = FATE_SURELY_NOT;
    switch (object_put_if_absent(dirfd, "fate", session, text, len, err)) {
    case PUT_CREATED:
        *ret_stands = *mine;
        return true;
    case PUT_FAILED:
        return false;
    case PUT_UNKNOWN:
        *ret_doubt = FATE_MAYBE;
        return false;
    case PUT_UNSYNCED:
        *ret_doubt = FATE_UNSURE;
        return false;
    case PUT_EXISTS:
        break;
    }
    *ret_doubt = FATE_UNSURE;
    /* Whoever made it may not have synced the directory yet: what we report must be durable. */
    if (!fate_read(dirfd, session, &stands, err) || !object_sync_dir(dirfd, "fate", err))
        return false;
    if (stands.kind == FATE_NONE)
        return err_set(err, ERR_IO, 0, "'fate/%s' exists but cannot be read", session);
    *ret_stands = stands;
    return true;
}
