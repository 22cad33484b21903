/* SPDX-License-Identifier: Apache-2.0 */
#include "scene.h"

#include <string.h>

void scene_open(struct scene *s)
{
    s->store = store_open(s->path, &s->opts, &s->err);
    MUST(s->store, &s->err);
}

void scene_begin(struct scene *s, const char *key, uint64_t pack_bytes, size_t image_bytes)
{
    *s = (struct scene){.opts = {.pack_bytes = pack_bytes}, .dir = temp_dir()};
    s->path = xasprintf("%s/repo", s->dir);
    if (key[0] != '\0') {
        s->full_key = make_key_file(s->dir, "full");
        s->write_key = make_key_file(s->dir, "write");
        struct store_opts opts = {.encrypt = true, .key_file = s->full_key};
        struct store *store = store_init(s->path, &opts, &s->err);
        char id[STORE_KEY_ID_CHARS + 1];
        struct store_key_opts add = {.key_file = s->write_key, .is_write_only = true};
        MUST(store && store_key_add(store, &add, id, &s->err), &s->err);
        store_free(store);
        s->opts.key_file = strcmp(key, "write") == 0 ? s->write_key : s->full_key;
    } else {
        store_free(store_init(s->path, NULL, &s->err));
    }
    s->image = (struct disk_image){.id = "d", .data = xmalloc(image_bytes), .size = image_bytes};
    fill_random(s->image.data, image_bytes, 7);
    scene_open(s);
}

void scene_end(struct scene *s)
{
    store_free(s->store);
    remove_tree(s->dir);
    free(s->image.data);
    free(s->path);
    free(s->full_key);
    free(s->write_key);
    free(s->dir);
}
