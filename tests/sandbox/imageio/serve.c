/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox's endpoint of image transfers on its own, for tests and benchmarks that hold it, or a
 * client, beside ovirt-imageio. Its tickets are those of the real one's control service.
 *
 *     sandbox_imageio [--cert FILE --key FILE] [--socket PATH]
 *
 * Writes {"port": N}, then answers lines with a line each. Ends with its input.
 *
 *     {"add": {"uuid": ID, "size": N, "ops": ["read"], "timeout": S, "url": "nbd:unix:PATH", ...}}
 *     {"remove": ID}  {"extend": ID, "timeout": S}  {"get": ID}
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tests/sandbox/imageio/imageio.h"

enum { LINE_BYTES = 8192, REMOVE_WAIT_MS = 2000 };

static bool is_allowed(const json_t *ticket, const char *op)
{
    size_t i;
    json_t *each;
    json_array_foreach (json_object_get(ticket, "ops"), i, each) {
        if (json_is_string(each) && strcmp(json_string_value(each), op) == 0)
            return true;
    }
    return false;
}

/* "nbd:unix:/run/socket:exportname=disk" as libnbd takes it. */
static char *uri_of(const char *url)
{
    static const char unix_socket[] = "nbd:unix:", name[] = ":exportname=";
    if (!url || strncmp(url, unix_socket, sizeof unix_socket - 1) != 0)
        return NULL;
    const char *path = url + sizeof unix_socket - 1, *end = strstr(path, name);
    if (!end)
        return xasprintf("nbd+unix:///?socket=%s", path);
    return xasprintf("nbd+unix:///%s?socket=%.*s", end + sizeof name - 1, (int)(end - path), path);
}

static unsigned number_of(const json_t *ticket, const char *name)
{
    return (unsigned)json_integer_value(json_object_get(ticket, name));
}

static bool add(struct imageio_server *s, const json_t *ticket, struct err *err)
{
    const char *id = json_string_value(json_object_get(ticket, "uuid"));
    SCOPED_FREE char *uri = uri_of(json_string_value(json_object_get(ticket, "url")));
    if (!id || !uri)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a ticket has a uuid, and an NBD socket as url");
    const struct imageio_ticket opts = {
        .id = id,
        .size_bytes = (uint64_t)json_integer_value(json_object_get(ticket, "size")),
        .can_read = is_allowed(ticket, "read"),
        .can_write = is_allowed(ticket, "write"),
        .uri = uri,
        .dirty_bitmap = json_string_value(json_object_get(ticket, "bitmap")),
        .transfer_id = json_string_value(json_object_get(ticket, "transfer_id")),
        .filename = json_string_value(json_object_get(ticket, "filename")),
        .timeout_s = number_of(ticket, "timeout"),
        .inactivity_timeout_s = number_of(ticket, "inactivity_timeout"),
        .sparse = json_is_true(json_object_get(ticket, "sparse"))};
    return imageio_ticket_add(s, &opts, err);
}

static bool get(struct imageio_server *s, const char *id, json_t *answer, struct err *err)
{
    struct imageio_ticket_info info = {0};
    if (!imageio_ticket_get(s, id, &info, err))
        return false;
    json_object_set_new(answer, "active", json_boolean(info.active));
    json_object_set_new(answer, "canceled", json_boolean(info.cancelled));
    json_object_set_new(answer, "connections", json_integer(info.connections));
    json_object_set_new(answer, "peak", json_integer(info.connections_peak));
    json_object_set_new(answer, "transferred", json_integer((json_int_t)info.transferred));
    return true;
}

/* False with err: also when the line asks for nothing that is known. */
static bool obey(struct imageio_server *s, const char *line, json_t *answer, struct err *err)
{
    json_auto_t *wish = json_loads(line, 0, NULL);
    const json_t *ticket = json_object_get(wish, "add");
    const char *remove_id = json_string_value(json_object_get(wish, "remove"));
    const char *extend_id = json_string_value(json_object_get(wish, "extend"));
    const char *get_id = json_string_value(json_object_get(wish, "get"));
    if (ticket)
        return add(s, ticket, err);
    if (remove_id)
        return imageio_ticket_remove(s, remove_id, REMOVE_WAIT_MS, err);
    if (extend_id)
        return imageio_ticket_extend(s, extend_id, number_of(wish, "timeout"), err);
    if (get_id)
        return get(s, get_id, answer, err);
    return err_set(err, ERR_BAD_ARGUMENT, 0, "add, remove, extend or get");
}

static void answer_lines(struct imageio_server *s)
{
    char line[LINE_BYTES];
    while (fgets(line, sizeof line, stdin)) {
        struct err err = ERR_INIT;
        json_auto_t *answer = json_object();
        if (!obey(s, line, answer, &err))
            json_object_set_new(answer, "error", json_string(err.message));
        (void)json_dumpf(answer, stdout, JSON_COMPACT);
        (void)fputc('\n', stdout);
        (void)fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    struct imageio_opts opts = {.address = "127.0.0.1"};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--cert") == 0)
            opts.cert_path = argv[i + 1];
        else if (strcmp(argv[i], "--key") == 0)
            opts.key_path = argv[i + 1];
        else if (strcmp(argv[i], "--socket") == 0)
            opts.unix_socket = argv[i + 1];
        else
            return 2;
    }
    struct err err = ERR_INIT;
    struct imageio_server *s = imageio_server_start(&opts, &err);
    if (!s) {
        (void)fprintf(stderr, "sandbox_imageio: %s\n", err.message);
        return 1;
    }
    (void)printf("{\"port\": %u}\n", imageio_server_port(s));
    (void)fflush(stdout);
    answer_lines(s);
    imageio_server_stop(s);
    return 0;
}
