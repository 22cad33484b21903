/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine client against a whole sandbox engine with real disks: the life of a backup and of a
 * restore, and then the same under every fault. After each test nothing of ours may be left.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "tests/integration/ovirt/sandbox.h"
#include "worker/ovirt/attachment.h"
#include "worker/ovirt/datacenter.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/nic.h"
#include "worker/ovirt/snapshot.h"
#include "worker/ovirt/vm.h"

enum { WAIT_MS = 60 * 1000 };

/* One sandbox for all tests. web has two disks; odd has one of each kind that cannot be backed up;
 * many* fill the pages of a listing. */
static const char spec[] =
    "{\"timings\":{\"profile\":\"fast\"},"
    "\"users\":[{\"name\":\"admin@internal\"},{\"name\":\"second@internal\",\"password\":\"pw2\"}],"
    "\"proxies\":[{\"name\":\"proxy1\"}],"
    "\"vms\":[{\"name\":\"web\",\"guest\":\"writer\",\"tags\":[\"backup\"],"
    "\"description\":\"the shop\",\"nics\":[{\"name\":\"nic1\",\"profile\":\"ovirtmgmt\"}],"
    "\"disks\":[{\"size\":\"8MiB\",\"format\":\"qcow2\",\"interface\":\"virtio_scsi\"},"
    "{\"size\":\"4MiB\",\"format\":\"raw\",\"interface\":\"virtio\"}]},"
    "{\"name\":\"odd\",\"guest\":\"none\",\"disks\":[{\"size\":\"4MiB\",\"format\":\"raw\"},"
    "{\"size\":\"4MiB\",\"format\":\"raw\",\"sparse\":false,\"shareable\":true},"
    "{\"size\":\"4MiB\",\"format\":\"raw\",\"lun\":true},"
    "{\"size\":\"4MiB\",\"format\":\"qcow2\",\"backup\":\"incremental\"},"
    "{\"size\":\"4MiB\",\"format\":\"raw\",\"active\":false}]},"
    "{\"name\":\"many%d\",\"count\":25,\"guest\":\"none\",\"status\":\"down\","
    "\"tags\":[\"many\"],\"disks\":[]}]}";

static struct sandbox box;

struct fixture {
    struct engine *engine;
    struct engine_session *session;
    struct err err;
    char *web; /* id of that VM */
};

static struct fixture x;

static int open_client(void **state)
{
    (void)state;
    struct engine_conf conf = sandbox_conf(&box);
    x = (struct fixture){.web = sandbox_vm_id(&box, "web")};
    x.engine = engine_new(&conf, &x.err);
    assert_non_null(x.engine);
    x.session = engine_session_new(x.engine, NULL);
    engine_session_set_step(x.session, "test");
    return 0;
}

static int close_client(void **state)
{
    (void)state;
    engine_session_free(x.session);
    engine_free(x.engine);
    free(x.web);
    json_decref(sandbox_control(&box, "DELETE", "faults", NULL));
    return 0;
}

static void assert_done(bool ok)
{
    if (!ok)
        fail_msg("%s: %s (%s:%d)", err_code_name(x.err.code), x.err.message, x.err.file,
                 x.err.line);
}

static void assert_failed(bool ok, enum err_code code)
{
    if (ok)
        fail_msg("should have failed with %s", err_code_name(code));
    if (x.err.code != code)
        fail_msg("expected %s, got %s: %s", err_code_name(code), err_code_name(x.err.code),
                 x.err.message);
    err_clear(&x.err);
}

/* --- A backup's calls, for the tests to break ------------------------------------------------- */
struct backup {
    char *mark, *snapshot;
    struct ovirt_disks disks;
};

static void fit_disks(const char *vm_id, struct ovirt_disks *ret)
{
    struct ovirt_vm vm;
    assert_done(ovirt_vm_get(x.session, vm_id, &vm, &x.err));
    assert_done(ovirt_vm_disks(&vm, ret, &x.err));
    ovirt_vm_done(&vm);
}

static char *new_mark(void)
{
    char id[ID_BYTES];
    id_new(id);
    return xasprintf("oxbow task=%s fence=1", id);
}

static void take_snapshot(struct backup *b)
{
    *b = (struct backup){.mark = new_mark()};
    fit_disks(x.web, &b->disks);
    const char *ids[8];
    size_t n = 0;
    for (size_t i = 0; i < b->disks.count; i++) {
        assert_int_equal(b->disks.v[i].fit, OVIRT_DISK_FIT);
        ids[n++] = b->disks.v[i].id;
    }
    b->snapshot = ovirt_snapshot_create(x.session, x.web, b->mark, ids, n, NULL, &x.err);
    assert_done(b->snapshot != NULL);
}

static void wait_snapshot(const struct backup *b)
{
    int64_t time_ms = 0;
    assert_done(ovirt_snapshot_wait_ok(x.session, x.web, b->snapshot, WAIT_MS, &time_ms, &x.err));
    assert_true(time_ms > INT64_C(1600000000000));
}

static void attach_all(const struct backup *b)
{
    for (size_t i = 0; i < b->disks.count; i++)
        assert_done(ovirt_attach_snapshot_disk(x.session, box.proxy_id, b->disks.v[i].id,
                                               b->snapshot, NULL, &x.err));
    assert_int_equal(sandbox_proxy_disks(&box), b->disks.count);
}

static void detach_all(const struct backup *b)
{
    for (size_t i = 0; i < b->disks.count; i++)
        assert_done(ovirt_detach(x.session, box.proxy_id, b->disks.v[i].id, WAIT_MS, &x.err));
    assert_int_equal(sandbox_proxy_disks(&box), 0);
}

static bool merge(const struct backup *b, unsigned tries)
{
    struct ovirt_merge how = {.limit_ms = WAIT_MS, .tries = tries};
    return ovirt_snapshot_delete(x.session, x.web, b->snapshot, "oxbow task=", &how, &x.err);
}

static void end_backup(struct backup *b)
{
    assert_done(merge(b, 3));
    assert_int_equal(sandbox_snapshots(&box, x.web), 0);
    ovirt_disks_done(&b->disks);
    free(b->mark);
    free(b->snapshot);
}

/* --- Without faults --------------------------------------------------------------------------- */
static void places_and_version(void **state)
{
    (void)state;
    struct engine_version v;
    assert_done(engine_read_version(x.session, &v, &x.err));
    assert_int_equal(engine_version_cmp(&v, 4, 5, 5), 0);
    struct ovirt_datacenter dc;
    assert_done(ovirt_datacenter_find(x.session, "Default", &dc, &x.err));
    assert_string_equal(dc.id, box.datacenter_id);
    struct ovirt_clusters clusters;
    assert_done(ovirt_clusters_list(x.session, dc.id, &clusters, &x.err));
    assert_non_null(ovirt_clusters_find(&clusters, "Default"));
    struct ovirt_storage_domains domains;
    assert_done(ovirt_storage_domains_list(x.session, dc.id, &domains, &x.err));
    const struct ovirt_storage_domain *d = ovirt_storage_domains_find(&domains, "data1");
    assert_string_equal(d->status, "active");
    assert_true(d->available_bytes > 0);
    assert_false(d->block);
    SCOPED_FREE char *proxy = ovirt_vm_find(x.session, "proxy1", &clusters, &x.err);
    assert_string_equal(proxy, box.proxy_id);
    ovirt_storage_domains_done(&domains);
    ovirt_clusters_done(&clusters);
    ovirt_datacenter_done(&dc);
}

struct count {
    unsigned rows, tags;
    uint64_t bytes;
    char last[64];
};

static bool count_row(void *ctx, const struct ovirt_vm_row *row, struct err *err)
{
    (void)err;
    struct count *c = ctx;
    c->rows++;
    c->tags += (unsigned)row->tags_count;
    c->bytes += row->provisioned_bytes;
    assert_true(strcmp(c->last, row->name) != 0);
    (void)snprintf(c->last, sizeof c->last, "%s", row->name);
    return true;
}

static unsigned rows_of(const struct ovirt_vm_search *what)
{
    struct count c = {0};
    assert_done(ovirt_vm_search(x.session, what, count_row, &c, &x.err));
    return c.rows;
}

static void searches_and_pages(void **state)
{
    (void)state;
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.page_size = 10}), 28);
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.page_size = 7}), 28);
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.page_size = 1000}), 28);
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.tag = "many", .page_size = 5}), 25);
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.tag = "nobody"}), 0);
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.name = "many1"}), 1);
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.name = "many*"}), 0);
    assert_int_equal(
        rows_of(&(struct ovirt_vm_search){.expression = "name=many1* and status=down"}), 11);
    assert_int_equal(rows_of(&(struct ovirt_vm_search){.clusters = &(struct ovirt_clusters){0}}),
                     0);
    struct count c = {0};
    struct ovirt_vm_search detailed = {.name = "web", .details = true};
    assert_done(ovirt_vm_search(x.session, &detailed, count_row, &c, &x.err));
    assert_int_equal(c.bytes, 12 << 20);
    assert_int_equal(c.tags, 1);
    assert_failed(ovirt_vm_search(x.session,
                                  &(struct ovirt_vm_search){.expression = "nonsense = ("},
                                  count_row, &c, &x.err),
                  ERR_BAD_ARGUMENT);
    assert_failed(ovirt_vm_search(x.session, &(struct ovirt_vm_search){.max_vms = 5}, count_row,
                                  &(struct count){0}, &x.err),
                  ERR_TOO_LARGE);
}

static void disks_are_judged_as_the_engine_sees_them(void **state)
{
    (void)state;
    SCOPED_FREE char *odd = sandbox_vm_id(&box, "odd");
    struct ovirt_disks disks;
    fit_disks(odd, &disks);
    unsigned seen[OVIRT_DISK_CHECKPOINTS + 1] = {0};
    for (size_t i = 0; i < disks.count; i++)
        seen[disks.v[i].fit]++;
    assert_int_equal(disks.count, 5);
    assert_int_equal(seen[OVIRT_DISK_FIT], 1);
    assert_int_equal(seen[OVIRT_DISK_SHAREABLE], 1);
    assert_int_equal(seen[OVIRT_DISK_LUN], 1);
    assert_int_equal(seen[OVIRT_DISK_CHECKPOINTS], 1);
    assert_int_equal(seen[OVIRT_DISK_UNPLUGGED], 1);
    ovirt_disks_done(&disks);
    bool checkpoints = true;
    assert_done(ovirt_vm_has_checkpoints(x.session, x.web, &checkpoints, &x.err));
    assert_false(checkpoints);
}

static void backup_calls(void **state)
{
    (void)state;
    struct backup b;
    take_snapshot(&b);
    wait_snapshot(&b);
    struct ovirt_snapshots list;
    assert_done(ovirt_snapshots_list(x.session, x.web, "oxbow task=", &list, &x.err));
    assert_int_equal(list.count, 1);
    assert_string_equal(list.v[0].id, b.snapshot);
    assert_string_equal(list.v[0].description, b.mark);
    ovirt_snapshots_done(&list);
    struct ovirt_disks in;
    assert_done(ovirt_snapshot_disks(x.session, x.web, b.snapshot, &in, &x.err));
    assert_int_equal(in.count, b.disks.count);
    for (size_t i = 0; i < in.count; i++) {
        const struct ovirt_disk *was = ovirt_disks_find(&b.disks, in.v[i].id);
        assert_non_null(was);
        assert_int_equal(was->provisioned_bytes, in.v[i].provisioned_bytes);
        assert_non_null(in.v[i].image_id);
    }
    ovirt_disks_done(&in);
    SCOPED_BUF struct buf ovf;
    assert_done(ovirt_snapshot_ovf(x.session, x.web, b.snapshot, &ovf, &x.err));
    assert_non_null(strstr(buf_str(&ovf), "Envelope"));
    attach_all(&b);
    struct ovirt_attachments attached;
    assert_done(ovirt_attachments_list(x.session, box.proxy_id, &attached, &x.err));
    assert_int_equal(attached.count, b.disks.count);
    assert_true(ovirt_attachments_find(&attached, b.disks.v[0].id)->active);
    ovirt_attachments_done(&attached);
    /* The snapshot cannot go while its disks hang on the proxy: no waiting for that. */
    assert_failed(merge(&b, 1), ERR_CONFLICT);
    /* Attaching twice is refused. */
    assert_failed(ovirt_attach_snapshot_disk(x.session, box.proxy_id, b.disks.v[0].id, b.snapshot,
                                             NULL, &x.err),
                  ERR_CONFLICT);
    detach_all(&b);
    assert_done(ovirt_detach(x.session, box.proxy_id, b.disks.v[0].id, WAIT_MS, &x.err));
    end_backup(&b);
    assert_done(ovirt_vm_freeze(x.session, x.web, &x.err));
    assert_done(ovirt_vm_thaw(x.session, x.web, &x.err));
}

static void foreign_snapshot_is_left_alone(void **state)
{
    (void)state;
    struct backup b;
    take_snapshot(&b);
    wait_snapshot(&b);
    struct ovirt_merge how = {.limit_ms = WAIT_MS};
    assert_failed(
        ovirt_snapshot_delete(x.session, x.web, b.snapshot, "another prefix", &how, &x.err),
        ERR_REFUSED);
    assert_int_equal(sandbox_snapshots(&box, x.web), 1);
    end_backup(&b);
}

/* --- A restore's calls ------------------------------------------------------------------------ */
struct saved {
    json_t *json;
    struct buf ovf;
    struct ovirt_disks disks;
    char *cluster_id;
};

static void save_web(struct saved *s)
{
    struct backup b;
    struct ovirt_vm vm;
    take_snapshot(&b);
    wait_snapshot(&b);
    assert_done(ovirt_snapshot_ovf(x.session, x.web, b.snapshot, &s->ovf, &x.err));
    assert_done(ovirt_vm_get(x.session, x.web, &vm, &x.err));
    s->json = ovirt_vm_describe(x.session, &vm, &x.err);
    assert_done(s->json != NULL);
    assert_done(ovirt_vm_disks(&vm, &s->disks, &x.err));
    s->cluster_id = xstrdup(vm.cluster_id);
    ovirt_vm_done(&vm);
    end_backup(&b);
}

static void saved_done(struct saved *s)
{
    json_decref(s->json);
    buf_done(&s->ovf);
    ovirt_disks_done(&s->disks);
    free(s->cluster_id);
}

struct restored {
    char *vm, *mark;
    char disks[8][ID_BYTES];
    size_t count;
};

static void make_vm(const struct saved *s, struct restored *r, bool from_ovf)
{
    *r = (struct restored){.mark = new_mark()};
    struct ovirt_vm_new as = {
        .name = "web-restored", .cluster_id = s->cluster_id, .description = r->mark};
    r->vm = from_ovf
                ? ovirt_vm_create_from_ovf(x.session,
                                           (struct slice){.data = s->ovf.data, .len = s->ovf.len},
                                           &as, &x.err)
                : ovirt_vm_create_from_json(x.session, s->json, &as, &x.err);
    assert_done(r->vm != NULL);
    assert_done(ovirt_vm_wait(x.session, r->vm, "down", WAIT_MS, &x.err));
    assert_int_equal(sandbox_vms_named(&box, "web-restored"), 1);
}

static void make_disks(const struct saved *s, struct restored *r)
{
    for (size_t i = 0; i < s->disks.count; i++) {
        const struct ovirt_disk *d = &s->disks.v[i];
        id_new(r->disks[i]);
        struct ovirt_disk_spec disk = {.id = r->disks[i],
                                       .alias = d->alias,
                                       .storage_domain_id = d->storage_domain_id,
                                       .format = d->format,
                                       .size_bytes = d->provisioned_bytes,
                                       .sparse = d->sparse};
        (void)ovirt_disk_spec_fit(&disk, false);
        assert_done(ovirt_disk_create(x.session, &disk, &x.err));
        r->count++;
        assert_done(ovirt_disk_wait_ok(x.session, r->disks[i], WAIT_MS, &x.err));
        assert_done(ovirt_attach_disk(x.session, box.proxy_id, r->disks[i],
                                      &(struct ovirt_attach){.active = true}, &x.err));
        assert_done(ovirt_detach(x.session, box.proxy_id, r->disks[i], WAIT_MS, &x.err));
        struct ovirt_attach how = {
            .interface = d->interface, .bootable = d->bootable, .active = true};
        assert_done(ovirt_attach_disk(x.session, r->vm, r->disks[i], &how, &x.err));
    }
}

static void remove_restored(struct restored *r)
{
    assert_failed(ovirt_vm_delete(x.session, r->vm, "not its mark", WAIT_MS, &x.err), ERR_REFUSED);
    assert_done(ovirt_vm_delete(x.session, r->vm, r->mark, WAIT_MS, &x.err));
    assert_int_equal(sandbox_vms_named(&box, "web-restored"), 0);
    for (size_t i = 0; i < r->count; i++) {
        struct ovirt_disk disk; /* the disks have outlived the VM */
        assert_done(ovirt_disk_get(x.session, r->disks[i], &disk, &x.err));
        ovirt_disk_done(&disk);
        assert_done(ovirt_disk_delete(x.session, r->disks[i], WAIT_MS, &x.err));
    }
    free(r->vm);
    free(r->mark);
}

static void check_restored(const struct saved *s, const struct restored *r)
{
    struct ovirt_vm vm;
    struct ovirt_disks disks;
    assert_done(ovirt_vm_get(x.session, r->vm, &vm, &x.err));
    assert_string_equal(vm.name, "web-restored");
    assert_string_equal(vm.description, "the shop");
    assert_string_equal(member_str(vm.raw, "memory"), member_str(s->json, "memory"));
    assert_done(ovirt_vm_disks(&vm, &disks, &x.err));
    assert_int_equal(disks.count, s->disks.count);
    for (size_t i = 0; i < r->count; i++) {
        const struct ovirt_disk *d = ovirt_disks_find(&disks, r->disks[i]);
        assert_non_null(d);
        assert_string_equal(d->interface, s->disks.v[i].interface);
        assert_int_equal(d->bootable, s->disks.v[i].bootable);
        assert_int_equal(d->provisioned_bytes, s->disks.v[i].provisioned_bytes);
    }
    const json_t *nics = member_list(vm.raw, "nics", "nic");
    assert_int_equal(json_array_size(nics), 1);
    assert_string_equal(member_str(json_array_get(nics, 0), "name"), "nic1");
    assert_false(member_bool_or(json_array_get(nics, 0), "plugged", true));
    assert_non_null(member_ref_id(json_array_get(nics, 0), "vnic_profile"));
    ovirt_disks_done(&disks);
    ovirt_vm_done(&vm);
}

static void restore_whole(const struct saved *s, bool from_ovf)
{
    struct restored r;
    size_t before = sandbox_disks(&box);
    make_vm(s, &r, from_ovf);
    make_disks(s, &r);
    struct ovirt_nics_how how = {.datacenter_id = box.datacenter_id};
    assert_done(ovirt_nics_restore(x.session, r.vm, s->json, &how, &x.err));
    assert_done(ovirt_nics_restore(x.session, r.vm, s->json, &how, &x.err)); /* harmless */
    assert_done(ovirt_vm_finish(x.session, r.vm, s->json, &x.err));
    check_restored(s, &r);
    assert_done(ovirt_vm_start(x.session, r.vm, &x.err));
    assert_done(ovirt_vm_wait(x.session, r.vm, "up", WAIT_MS, &x.err));
    SCOPED_FREE char *stop = xasprintf("vms/%s/stop", r.vm);
    struct engine_mutation m = {
        .method = ENGINE_POST, .path = stop, .probe = engine_probe_repeatable};
    assert_done(engine_mutate(x.session, &m, NULL, &x.err));
    assert_done(ovirt_vm_wait(x.session, r.vm, "down", WAIT_MS, &x.err));
    assert_done(ovirt_vm_set_description(x.session, r.vm, r.mark, &x.err));
    remove_restored(&r);
    assert_int_equal(sandbox_disks(&box), before);
}

static void restore_calls_from_json_and_ovf(void **state)
{
    (void)state;
    struct saved s;
    save_web(&s);
    restore_whole(&s, false);
    restore_whole(&s, true);
    saved_done(&s);
}

static void taken_name_is_refused(void **state)
{
    (void)state;
    struct saved s;
    save_web(&s);
    struct ovirt_vm_new as = {.name = "web", .cluster_id = s.cluster_id, .description = "oxbow r"};
    struct slice ovf = {.data = s.ovf.data, .len = s.ovf.len};
    assert_failed(ovirt_vm_create_from_json(x.session, s.json, &as, &x.err) != NULL, ERR_EXISTS);
    assert_failed(ovirt_vm_create_from_ovf(x.session, ovf, &as, &x.err) != NULL, ERR_EXISTS);
    assert_int_equal(sandbox_vms_named(&box, "web"), 1);
    saved_done(&s);
}

/* --- Other versions --------------------------------------------------------------------------- */
static void set_version(const char *version)
{
    SCOPED_FREE char *body = xasprintf("{\"version\":\"%s\"}", version);
    json_decref(sandbox_control(&box, "POST", "version", body));
    engine_session_free(x.session);
    engine_free(x.engine);
    struct engine_conf conf = sandbox_conf(&box);
    x.engine = engine_new(&conf, &x.err);
    x.session = engine_session_new(x.engine, NULL);
}

static void every_version_takes_our_bodies(void **state)
{
    (void)state;
    static const char *const versions[] = {"4.3.10", "4.4.2", "4.4.10", "4.5.8"};
    struct saved s;
    save_web(&s); /* by a 4.5 engine: restored on older ones too */
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        set_version(versions[i]);
        struct backup b;
        take_snapshot(&b);
        wait_snapshot(&b);
        attach_all(&b);
        detach_all(&b);
        end_backup(&b);
        restore_whole(&s, false);
        restore_whole(&s, true);
    }
    set_version("4.5.5");
    saved_done(&s);
}

static void unknown_member_is_told_apart(void **state)
{
    (void)state;
    json_auto_t *body = json_pack("{s:s}", "no_such_member", "1");
    SCOPED_FREE char *path = xasprintf("vms/%s", x.web);
    struct engine_mutation m = {
        .method = ENGINE_PUT, .path = path, .body = body, .probe = engine_probe_repeatable};
    assert_failed(engine_mutate(x.session, &m, NULL, &x.err), ERR_UNSUPPORTED);
}

/* --- Connection, login ------------------------------------------------------------------------ */
static void expired_tokens_are_renewed_everywhere(void **state)
{
    (void)state;
    struct backup b;
    take_snapshot(&b);
    json_decref(sandbox_control(&box, "POST", "expire-tokens", NULL));
    wait_snapshot(&b);
    sandbox_break(&box, "[{\"method\":\"POST\",\"path\":\"diskattachments\",\"action\":"
                        "\"expire-tokens\",\"count\":1}]");
    attach_all(&b);
    json_decref(sandbox_control(&box, "POST", "expire-tokens", NULL));
    detach_all(&b);
    json_decref(sandbox_control(&box, "POST", "expire-tokens", NULL));
    end_backup(&b);
    sandbox_heal(&box);
}

static void use(const struct engine_conf *conf)
{
    engine_session_free(x.session);
    engine_free(x.engine);
    x.engine = engine_new(conf, &x.err);
    assert_non_null(x.engine);
    x.session = engine_session_new(x.engine, NULL);
}

static void wrong_password_and_wrong_ca(void **state)
{
    (void)state;
    struct engine_conf conf = sandbox_conf(&box);
    SCOPED_FREE char *wrong = xasprintf("%s/wrong", box.dir);
    assert_true(file_write_atomic(AT_FDCWD, wrong, "not the password", 16, 0600, &x.err));
    conf.password_file = wrong;
    use(&conf);
    json_auto_t *answer = NULL;
    size_t before = sandbox_changes(&box, "POST", "/sso/oauth/token");
    assert_failed(engine_get(x.session, "vms", NULL, &answer, &x.err), ERR_ENGINE_AUTH);
    assert_failed(engine_get(x.session, "vms", NULL, &answer, &x.err), ERR_ENGINE_AUTH);
    assert_true(sandbox_changes(&box, "POST", "/sso/oauth/token") <= before + 1);
    conf = sandbox_conf(&box);
    conf.ca_file = NULL;
    use(&conf);
    assert_failed(engine_get(x.session, "vms", NULL, &answer, &x.err), ERR_ENGINE_TLS);
    conf.user = "nobody@internal";
    conf.ca_file = box.ca_file;
    use(&conf);
    assert_failed(engine_get(x.session, "vms", NULL, &answer, &x.err), ERR_ENGINE_AUTH);
}

#define PAGE_503                                                                                   \
    "\"status\":503,\"type\":\"text/html\",\"body\":\"<html>Service Unavailable</html>\""
static void restarting_engine_is_waited_for(void **state)
{
    (void)state;
    struct backup b;
    sandbox_break(&box,
                  "[{\"method\":\"GET\",\"path\":\"/vms\",\"action\":\"status\"," PAGE_503
                  ",\"count\":3},"
                  "{\"method\":\"POST\",\"path\":\"snapshots$\",\"action\":\"status\"," PAGE_503
                  ",\"count\":2},"
                  "{\"method\":\"DELETE\",\"path\":\"snapshots\",\"action\":\"status\"," PAGE_503
                  ",\"count\":1}]");
    take_snapshot(&b);
    wait_snapshot(&b);
    assert_int_equal(sandbox_snapshots(&box, x.web), 1);
    end_backup(&b);
    sandbox_heal(&box);
}

/* --- Lost answers: before and after the effect ------------------------------------------------ */
static void lost_answers_of_a_backup(void **state)
{
    (void)state;
    static const char *const whens[] = {"before", "after"};
    for (size_t i = 0; i < ARRAY_LEN(whens); i++) {
        struct backup b;
        SCOPED_FREE char *rules = xasprintf(
            "[{\"method\":\"POST\",\"path\":\"snapshots$\",\"when\":\"%s\",\"action\":\"drop\"},"
            "{\"method\":\"POST\",\"path\":\"diskattachments$\",\"when\":\"%s\",\"action\":"
            "\"drop\"},"
            "{\"method\":\"DELETE\",\"path\":\"diskattachments\",\"when\":\"%s\",\"action\":"
            "\"drop\"},"
            "{\"method\":\"DELETE\",\"path\":\"snapshots\",\"when\":\"%s\",\"action\":\"drop\"},"
            "{\"method\":\"GET\",\"path\":\"vms\",\"when\":\"%s\",\"action\":\"drop\",\"skip\":4,"
            "\"count\":2}]",
            whens[i], whens[i], whens[i], whens[i], whens[i]);
        sandbox_break(&box, rules);
        take_snapshot(&b);
        assert_int_equal(sandbox_snapshots(&box, x.web), 1);
        wait_snapshot(&b);
        attach_all(&b);
        detach_all(&b);
        end_backup(&b);
        sandbox_heal(&box);
    }
}

static void lost_answers_of_a_restore(void **state)
{
    (void)state;
    static const char *const whens[] = {"before", "after"};
    struct saved s;
    save_web(&s);
    for (size_t i = 0; i < ARRAY_LEN(whens); i++) {
        for (int from_ovf = 0; from_ovf < 2; from_ovf++) {
            SCOPED_FREE char *rules = xasprintf(
                "[{\"method\":\"POST\",\"path\":\"vms$\",\"when\":\"%s\",\"action\":\"drop\"},"
                "{\"method\":\"POST\",\"path\":\"disks$\",\"when\":\"%s\",\"action\":\"drop\","
                "\"count\":2},"
                "{\"method\":\"POST\",\"path\":\"diskattachments$\",\"when\":\"%s\",\"action\":"
                "\"drop\",\"skip\":1,\"count\":2},"
                "{\"method\":\"POST\",\"path\":\"nics$\",\"when\":\"%s\",\"action\":\"drop\"},"
                "{\"method\":\"POST\",\"path\":\"start$\",\"when\":\"%s\",\"action\":\"drop\"},"
                "{\"method\":\"DELETE\",\"path\":\"vms/[^/"
                "]*$\",\"when\":\"%s\",\"action\":\"drop\"},"
                "{\"method\":\"DELETE\",\"path\":\"disks/\",\"when\":\"%s\",\"action\":\"drop\"},"
                "{\"method\":\"PUT\",\"path\":\"vms\",\"when\":\"%s\",\"action\":\"drop\"}]",
                whens[i], whens[i], whens[i], whens[i], whens[i], whens[i], whens[i], whens[i]);
            sandbox_break(&box, rules);
            restore_whole(&s, from_ovf);
            sandbox_heal(&box);
        }
    }
    saved_done(&s);
}

static void slow_answer_is_a_lost_answer(void **state)
{
    (void)state;
    struct engine_conf conf = sandbox_conf(&box);
    conf.request_timeout_ms = 700;
    use(&conf);
    struct backup b;
    sandbox_break(&box, "[{\"method\":\"POST\",\"path\":\"snapshots$\",\"when\":\"after\","
                        "\"action\":\"delay\",\"delay_ms\":2000}]");
    take_snapshot(&b);
    assert_int_equal(sandbox_snapshots(&box, x.web), 1);
    wait_snapshot(&b);
    sandbox_heal(&box);
    end_backup(&b);
}

/* --- Locks and refusals ----------------------------------------------------------------------- */
#define LOCK_BODY                                                                                  \
    "\"status\":409,\"reason\":\"Operation Failed\",\"detail\":\"[Cannot do it. Related "          \
    "operation "                                                                                   \
    "is currently in progress. Please try again later.]\""
static void locks_are_waited_for(void **state)
{
    (void)state;
    struct backup b;
    sandbox_break(&box,
                  "[{\"method\":\"POST\",\"path\":\"snapshots$\",\"action\":\"status\",\"count\":"
                  "4," LOCK_BODY "},"
                  "{\"method\":\"POST\",\"path\":\"diskattachments$\",\"action\":\"status\","
                  "\"count\":3," LOCK_BODY "},"
                  "{\"method\":\"DELETE\",\"path\":\"diskattachments\",\"action\":\"status\","
                  "\"count\":3," LOCK_BODY "},"
                  "{\"method\":\"DELETE\",\"path\":\"snapshots\",\"action\":\"status\",\"count\":"
                  "3," LOCK_BODY "}]");
    take_snapshot(&b);
    wait_snapshot(&b);
    attach_all(&b);
    detach_all(&b);
    end_backup(&b);
    sandbox_heal(&box);
}

/* The snapshot reads ok, but the VM's lock is released later: two at once make the wait. */
static void late_lock_release_is_waited_for(void **state)
{
    (void)state;
    struct backup b;
    json_decref(sandbox_control(&box, "POST", "timings", "{\"lock_release_ms\":1500}"));
    take_snapshot(&b);
    wait_snapshot(&b);
    end_backup(&b);
    json_decref(sandbox_control(&box, "POST", "timings", "{\"lock_release_ms\":100}"));
}

static void spent_budget_is_engine_busy(void **state)
{
    (void)state;
    struct engine_conf conf = sandbox_conf(&box);
    conf.busy_budget_ms = 1000;
    use(&conf);
    sandbox_break(&box,
                  "[{\"method\":\"POST\",\"path\":\"snapshots$\",\"action\":\"status\",\"count\":"
                  "0," LOCK_BODY "}]");
    struct ovirt_disks disks;
    fit_disks(x.web, &disks);
    const char *ids[] = {disks.v[0].id};
    assert_failed(ovirt_snapshot_create(x.session, x.web, "oxbow task=x", ids, 1, NULL, &x.err) !=
                      NULL,
                  ERR_ENGINE_BUSY);
    ovirt_disks_done(&disks);
    sandbox_heal(&box);
    assert_int_equal(sandbox_snapshots(&box, x.web), 0);
}

static void merge_that_is_slow_to_start_is_not_called_failed(void **state)
{
    (void)state;
    struct backup b;
    take_snapshot(&b);
    wait_snapshot(&b);
    /* Reads ok for a while after the DELETE was answered. */
    json_decref(sandbox_control(&box, "POST", "timings", "{\"merge_start_ms\":2000}"));
    assert_done(merge(&b, 1));
    json_decref(sandbox_control(&box, "POST", "timings", "{\"merge_start_ms\":50}"));
    end_backup(&b);
}

/* --- Failures inside the engine --------------------------------------------------------------- */
static void vanished_snapshot_is_reported(void **state)
{
    (void)state;
    struct backup b;
    sandbox_break(&box, "[{\"point\":\"snapshot-vanish\",\"vm\":\"web\"}]");
    take_snapshot(&b);
    assert_failed(ovirt_snapshot_wait_ok(x.session, x.web, b.snapshot, WAIT_MS, NULL, &x.err),
                  ERR_SNAPSHOT_FAILED);
    sandbox_heal(&box);
    end_backup(&b);
}

struct failures {
    unsigned calls;
    struct err last;
};

static void note_failure(void *ctx, unsigned attempt, const struct err *why)
{
    struct failures *f = ctx;
    assert_int_equal(attempt, ++f->calls);
    f->last = *why;
}

static void failed_merge_is_repeated(void **state)
{
    (void)state;
    struct backup b;
    take_snapshot(&b);
    wait_snapshot(&b);
    sandbox_break(&box, "[{\"point\":\"merge-fail\",\"vm\":\"web\",\"count\":2}]");
    struct failures f = {0};
    struct ovirt_merge how = {.limit_ms = WAIT_MS, .tries = 3, .failed = note_failure, .ctx = &f};
    assert_done(ovirt_snapshot_delete(x.session, x.web, b.snapshot, "oxbow task=", &how, &x.err));
    assert_int_equal(f.calls, 2);
    assert_int_equal(f.last.code, ERR_MERGE_FAILED);
    sandbox_heal(&box);
    end_backup(&b);
}

static void merge_that_always_fails_is_reported(void **state)
{
    (void)state;
    struct backup b;
    take_snapshot(&b);
    wait_snapshot(&b);
    sandbox_break(&box, "[{\"point\":\"merge-fail\",\"vm\":\"web\",\"count\":0}]");
    assert_failed(merge(&b, 2), ERR_MERGE_FAILED);
    sandbox_heal(&box);
    end_backup(&b);
}

static void failing_hotplug_is_repeated(void **state)
{
    (void)state;
    struct backup b;
    take_snapshot(&b);
    wait_snapshot(&b);
    sandbox_break(&box, "[{\"point\":\"hotplug-fail\",\"count\":1},{\"point\":\"unplug-busy\","
                        "\"count\":1}]");
    attach_all(&b);
    detach_all(&b);
    sandbox_heal(&box);
    end_backup(&b);
}

static void failing_freeze_and_disk_are_reported(void **state)
{
    (void)state;
    sandbox_break(&box, "[{\"point\":\"freeze-fail\"},{\"point\":\"thaw-fail\"},{\"point\":"
                        "\"disk-fail\"}]");
    assert_failed(ovirt_vm_freeze(x.session, x.web, &x.err), ERR_QUIESCE_FAILED);
    (void)ovirt_vm_thaw(x.session, x.web, &x.err);
    err_clear(&x.err);
    struct ovirt_disks disks;
    fit_disks(x.web, &disks);
    char id[ID_BYTES];
    id_new(id);
    struct ovirt_disk_spec disk = {.id = id,
                                   .storage_domain_id = disks.v[0].storage_domain_id,
                                   .format = "raw",
                                   .size_bytes = 1 << 20,
                                   .sparse = true};
    assert_done(ovirt_disk_create(x.session, &disk, &x.err));
    assert_failed(ovirt_disk_wait_ok(x.session, id, WAIT_MS, &x.err), ERR_ENGINE_FAULT);
    assert_done(ovirt_disk_delete(x.session, id, WAIT_MS, &x.err));
    ovirt_disks_done(&disks);
    sandbox_heal(&box);
}

/* --- The lease -------------------------------------------------------------------------------- */
static bool no_lease(void *ctx, struct err *err)
{
    ++*(unsigned *)ctx;
    return err_set(err, ERR_LEASE_LOST, 0, "another worker has it");
}

static void without_a_lease_nothing_is_changed(void **state)
{
    (void)state;
    unsigned asked = 0;
    struct backup b;
    take_snapshot(&b);
    wait_snapshot(&b);
    engine_session_set_hooks(x.session,
                             &(struct engine_hooks){.ctx = &asked, .before_mutation = no_lease});
    assert_failed(merge(&b, 3), ERR_LEASE_LOST);
    assert_failed(ovirt_attach_snapshot_disk(x.session, box.proxy_id, b.disks.v[0].id, b.snapshot,
                                             NULL, &x.err),
                  ERR_LEASE_LOST);
    assert_int_equal(asked, 2);
    assert_int_equal(sandbox_snapshots(&box, x.web), 1);
    assert_int_equal(sandbox_proxy_disks(&box), 0);
    engine_session_set_hooks(x.session, NULL);
    end_backup(&b);
}

/* ---------------------------------------------------------------------------------------------- */
static int start_all(void **state)
{
    (void)state;
    log_set_level(LOG_LEVEL_WARN);
    sandbox_start(&box, spec, "4.5.5");
    return 0;
}

static int stop_all(void **state)
{
    (void)state;
    sandbox_stop(&box);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_client, close_client)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(places_and_version),
        TEST(searches_and_pages),
        TEST(disks_are_judged_as_the_engine_sees_them),
        TEST(backup_calls),
        TEST(foreign_snapshot_is_left_alone),
        TEST(restore_calls_from_json_and_ovf),
        TEST(taken_name_is_refused),
        TEST(every_version_takes_our_bodies),
        TEST(unknown_member_is_told_apart),
        TEST(expired_tokens_are_renewed_everywhere),
        TEST(wrong_password_and_wrong_ca),
        TEST(restarting_engine_is_waited_for),
        TEST(lost_answers_of_a_backup),
        TEST(lost_answers_of_a_restore),
        TEST(slow_answer_is_a_lost_answer),
        TEST(locks_are_waited_for),
        TEST(late_lock_release_is_waited_for),
        TEST(spent_budget_is_engine_busy),
        TEST(merge_that_is_slow_to_start_is_not_called_failed),
        TEST(vanished_snapshot_is_reported),
        TEST(failed_merge_is_repeated),
        TEST(merge_that_always_fails_is_reported),
        TEST(failing_hotplug_is_repeated),
        TEST(failing_freeze_and_disk_are_reported),
        TEST(without_a_lease_nothing_is_changed),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
