/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/disk_search.h"

#include <string.h>

#include "worker/ovirt/member.h"

enum { PAGE_SIZE = 200, PAGES_MAX = 500 };

static const char *first_domain(const json_t *disk)
{
    const json_t *list = member_list(disk, "storage_domains", "storage_domain");
    const char *id = member_str(json_array_get(list, 0), "id");
    return id ? id : member_ref_id(disk, "storage_domain");
}

static bool give(const json_t *disk, const char *prefix, json_t *seen, ovirt_disk_row_fn each,
                 void *ctx, struct err *err)
{
    const struct ovirt_disk_row row = {
        .id = member_str(disk, "id"),
        .alias = member_str(disk, "alias"),
        .description = member_str(disk, "description"),
        .storage_domain_id = first_domain(disk),
    };
    if (!row.id || !row.description || strncmp(row.description, prefix, strlen(prefix)) != 0)
        return true;
    struct err ignored = ERR_INIT;
    /* The list may shift between two pages. */
    if (!engine_check_id("disk", row.id, &ignored) || json_object_get(seen, row.id))
        return true;
    json_object_set_new(seen, row.id, json_true());
    return each(ctx, &row, err);
}

/* Filtered here, not by the search: the engine's wildcards match words in their own way, and a disk
 * that is missed stays for ever. */
bool ovirt_disks_each(struct engine_session *s, const char *description_prefix,
                      ovirt_disk_row_fn each, void *ctx, struct err *err)
{
    json_auto_t *seen = json_object();
    for (unsigned page = 1; page <= PAGES_MAX; page++) {
        SCOPED_FREE char *search = xasprintf("sortby alias page %u", page);
        SCOPED_FREE char *escaped = engine_escape(search);
        SCOPED_FREE char *query = xasprintf("search=%s&max=%d", escaped, (int)PAGE_SIZE);
        json_auto_t *answer = NULL;
        if (!engine_get(s, "disks", query, &answer, err))
            return err_wrap(err, "list the disks");
        json_t *list = member_list(answer, NULL, "disk");
        if (json_array_size(list) == 0)
            return true;
        size_t i;
        json_t *disk;
        json_array_foreach (list, i, disk) {
            if (!give(disk, description_prefix, seen, each, ctx, err))
                return false;
        }
    }
    return err_set(err, ERR_TOO_LARGE, 0, "the engine has more than %d disks",
                   PAGES_MAX * PAGE_SIZE);
}
