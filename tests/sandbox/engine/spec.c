/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/spec.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/file.h"
#include "tests/sandbox/engine/auth.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/members.h"
#include "tests/sandbox/engine/spec_read.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/vms.h"

struct filler {
    struct engine *e;
    struct spec *out;
    struct err *err;
    unsigned vm_count;
};

void spec_done(struct spec *s)
{
    free(s->start.at);
    free(s->user);
    free(s->password);
}

/* --- The fixed parts -------------------------------------------------------------------------- */

static bool add_dc(struct filler *f, const json_t *o)
{
    static const char *const known[] = {"name", "id", NULL};
    const char *name;
    if (!spec_known(o, "data centre", known, f->err) || !spec_name(o, "data centre", &name, f->err))
        return false;
    struct data_center *dc = ALLOC_NEW(struct data_center);
    dc->name = xstrdup(name);
    VEC_ADD(&f->e->model.dcs, dc);
    return spec_id(o, dc->id, f->err);
}

/* The data centre that `o` names, or the first one. */
static struct data_center *dc_of(const struct filler *f, const json_t *o)
{
    const char *name = in_str(o, "data_center");
    struct data_center *dc = name ? model_dc(&f->e->model, name) : f->e->model.dcs.at[0];
    if (!dc)
        err_set(f->err, ERR_BAD_CONFIG, 0, "spec: no data centre '%s'", name);
    return dc;
}

static bool add_cluster(struct filler *f, const json_t *o)
{
    static const char *const known[] = {"name", "id", "data_center", NULL};
    const char *name;
    if (!spec_known(o, "cluster", known, f->err) || !spec_name(o, "cluster", &name, f->err))
        return false;
    struct cluster *c = ALLOC_NEW(struct cluster);
    c->name = xstrdup(name);
    VEC_ADD(&f->e->model.clusters, c);
    c->dc = dc_of(f, o);
    return c->dc && spec_id(o, c->id, f->err);
}

static struct cluster *cluster_of(const struct filler *f, const json_t *o)
{
    const char *name = in_str(o, "cluster");
    struct cluster *c = name ? model_cluster(&f->e->model, name) : f->e->model.clusters.at[0];
    if (!c)
        err_set(f->err, ERR_BAD_CONFIG, 0, "spec: no cluster '%s'", name);
    return c;
}

static bool add_host(struct filler *f, const json_t *o)
{
    static const char *const known[] = {"name", "id", "cluster", "address", NULL};
    const char *name, *address = in_str(o, "address");
    if (!spec_known(o, "host", known, f->err) || !spec_name(o, "host", &name, f->err))
        return false;
    struct host *h = ALLOC_NEW(struct host);
    h->name = xstrdup(name);
    h->address = address ? xstrdup(address) : xasprintf("%s.example", name);
    VEC_ADD(&f->e->model.hosts, h);
    h->cluster = cluster_of(f, o);
    return h->cluster && spec_id(o, h->id, f->err);
}

static bool add_sd(struct filler *f, const json_t *o)
{
    static const char *const known[] = {"name",   "id",   "data_center", "type",
                                        "status", "size", "export",      NULL};
    const char *name, *type = in_str(o, "type"), *status = in_str(o, "status");
    uint64_t size = UINT64_C(1) << 40;
    if (!spec_known(o, "storage domain", known, f->err) ||
        !spec_name(o, "storage domain", &name, f->err) || !spec_size(o, "size", &size, f->err))
        return false;
    struct storage_domain *sd = ALLOC_NEW(struct storage_domain);
    sd->name = xstrdup(name);
    sd->storage_type = xstrdup(type ? type : "nfs");
    sd->status = xstrdup(status ? status : "active");
    sd->size_bytes = size;
    sd->is_export = spec_bool(o, "export", false);
    VEC_ADD(&f->e->model.sds, sd);
    sd->dc = dc_of(f, o);
    return sd->dc && spec_id(o, sd->id, f->err);
}

/* A network with one vNIC profile of the same name, unless more are named. */
static bool add_network(struct filler *f, const json_t *o)
{
    static const char *const known[] = {"name", "id", "data_center", "profiles", NULL};
    const char *name;
    if (!spec_known(o, "network", known, f->err) || !spec_name(o, "network", &name, f->err))
        return false;
    struct network *n = ALLOC_NEW(struct network);
    n->name = xstrdup(name);
    VEC_ADD(&f->e->model.networks, n);
    n->dc = dc_of(f, o);
    if (!n->dc || !spec_id(o, n->id, f->err))
        return false;
    const json_t *profiles = json_object_get(o, "profiles");
    size_t count = profiles ? json_array_size(profiles) : 1;
    for (size_t i = 0; i < count; i++) {
        const char *profile = profiles ? json_string_value(json_array_get(profiles, i)) : name;
        struct vnic_profile *p = ALLOC_NEW(struct vnic_profile);
        id_new(p->id);
        p->name = xstrdup(profile ? profile : name);
        p->network = n;
        VEC_ADD(&f->e->model.profiles, p);
    }
    return true;
}

static struct tag *add_tag(struct engine *e, const char *name)
{
    struct tag *t = model_tag(&e->model, name);
    if (t)
        return t;
    t = ALLOC_NEW(struct tag);
    id_new(t->id);
    t->name = xstrdup(name);
    t->description = xstrdup("");
    t->parent = e->model.tags.len ? e->model.tags.at[0] : NULL;
    VEC_ADD(&e->model.tags, t);
    return t;
}

static bool add_user(struct filler *f, const json_t *o)
{
    static const char *const known[] = {"name", "password", NULL};
    const char *name, *password = in_str(o, "password");
    char fresh[ID_BYTES];
    if (!spec_known(o, "user", known, f->err) || !spec_name(o, "user", &name, f->err))
        return false;
    id_new(fresh);
    auth_add_user(f->e->auth, name, password ? password : fresh);
    if (!f->out->user) {
        f->out->user = xstrdup(name);
        f->out->password = xstrdup(password ? password : fresh);
    }
    return true;
}

/* --- VMs -------------------------------------------------------------------------------------- */

static bool add_disk(struct filler *f, struct vm *vm, const json_t *o, size_t index)
{
    static const char *const known[] = {
        "size",           "format",    "interface", "bootable", "fill", "sparse",
        "storage_domain", "shareable", "lun",       "backup",   "id",   "alias",
        "active",         "shared",    "hot_mib",   NULL};
    const char *where = "disk", *format = in_str(o, "format"), *alias = in_str(o, "alias");
    const char *interface = in_str(o, "interface"), *sd_name = in_str(o, "storage_domain");
    const char *backup = in_str(o, "backup");
    uint64_t size = 0;
    double fill = 0.3, shared = 0.3;
    json_int_t hot_mib = 8;
    if (json_object_get(o, "hot_mib"))
        hot_mib = json_integer_value(json_object_get(o, "hot_mib"));
    if (!spec_known(o, where, known, f->err) || !spec_size(o, "size", &size, f->err) ||
        !spec_fraction(o, "fill", &fill, f->err) || !spec_fraction(o, "shared", &shared, f->err))
        return false;
    if (size == 0 || size % 512 != 0)
        return err_set(f->err, ERR_BAD_CONFIG, 0,
                       "spec: a disk of VM '%s' needs a size that is a multiple of 512", vm->name);
    if (hot_mib < 1 || hot_mib > 65536)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: hot_mib is 1 to 65536");
    if (format && strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0 &&
        strcmp(format, "cow") != 0)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: disk format '%s': raw or qcow2", format);
    struct disk *d = ALLOC_NEW(struct disk);
    VEC_ADD(&f->e->model.disks, d);
    d->cow = format && strcmp(format, "raw") != 0;
    d->lun = spec_bool(o, "lun", false);
    d->shareable = spec_bool(o, "shareable", false);
    d->sparse = spec_bool(o, "sparse", true);
    d->incremental = backup && !strcmp(backup, "incremental");
    d->size_bytes = size;
    d->fill_percent = (unsigned)(fill * 100);
    d->shared_percent = (unsigned)(shared * 100);
    d->hot_mib = (unsigned)hot_mib;
    d->created_ms = engine_now_ms(f->e);
    d->alias = alias ? xstrdup(alias) : xasprintf("%s_Disk%zu", vm->name, index + 1);
    d->sd = d->lun ? NULL : storage_default_sd(f->e, sd_name, vm->cluster->dc);
    if (!d->lun && !d->sd)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: no storage domain '%s' for VM '%s'",
                       sd_name ? sd_name : "(any)", vm->name);
    if (!spec_id(o, d->id, f->err))
        return false;
    (void)vms_attach(vm, d, interface ? interface : "virtio_scsi",
                     spec_bool(o, "bootable", index == 0), spec_bool(o, "active", true));
    if (!storage_create_base(f->e, d, NULL, vm_active_snapshot(vm)->id, f->err))
        return err_wrap(f->err, "disk '%s'", d->alias);
    return true;
}

static bool add_disks(struct filler *f, struct vm *vm, const json_t *o)
{
    const json_t *disks = json_object_get(o, "disks");
    for (size_t i = 0; i < json_array_size(disks); i++)
        if (!add_disk(f, vm, json_array_get(disks, i), i))
            return err_wrap(f->err, "VM '%s'", vm->name);
    return true;
}

static bool add_nics(struct filler *f, struct vm *vm, const json_t *o)
{
    static const char *const known[] = {"name", "profile", "interface", "mac", NULL};
    const json_t *nics = json_object_get(o, "nics");
    for (size_t i = 0; i < json_array_size(nics); i++) {
        const json_t *n = json_array_get(nics, i);
        const char *profile_name = in_str(n, "profile"), *interface = in_str(n, "interface");
        const char *name = in_str(n, "name");
        if (!spec_known(n, "NIC", known, f->err))
            return false;
        struct vnic_profile *p = profile_name ? model_profile(&f->e->model, profile_name) : NULL;
        if (profile_name && !p)
            return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: no vNIC profile '%s'", profile_name);
        SCOPED_FREE char *fallback = xasprintf("nic%zu", i + 1);
        (void)vms_add_nic(f->e, vm, name ? name : fallback, interface ? interface : "virtio",
                          in_str(n, "mac"), p);
    }
    return true;
}

static bool set_guest(struct filler *f, struct vm *vm, const json_t *o, bool is_proxy)
{
    const char *guest = in_str(o, "guest");
    json_int_t rate = 20;
    if (!guest)
        guest = is_proxy ? "none" : "writer";
    if (!strcmp(guest, "writer"))
        vm->guest_kind = GUEST_WRITER;
    else if (!strcmp(guest, "linux"))
        vm->guest_kind = GUEST_LINUX;
    else if (strcmp(guest, "none") != 0)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: guest '%s': writer, linux or none", guest);
    if (json_object_get(o, "writer_rate"))
        rate = json_integer_value(json_object_get(o, "writer_rate"));
    if (rate < 0 || rate > 100000)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: writer_rate is 0 to 100000 a second");
    vm->writer_rate = (unsigned)rate;
    vm->agent = spec_bool(o, "agent", vm->guest_kind != GUEST_NONE && !storage_is_machine(vm));
    if (storage_is_machine(vm) && json_array_size(json_object_get(o, "disks")) > 0)
        return err_set(f->err, ERR_BAD_CONFIG, 0,
                       "spec: proxy '%s' has a Linux guest: it can have no disks of its own",
                       vm->name);
    if (storage_is_machine(vm) && !f->e->opts.linux_dir)
        return err_set(f->err, ERR_BAD_CONFIG, 0,
                       "spec: the Linux guest of proxy '%s' needs --linux-guest DIR", vm->name);
    return true;
}

static bool set_status(struct filler *f, struct vm *vm, const json_t *o)
{
    const char *status = in_str(o, "status");
    if (!status || !strcmp(status, "up"))
        VEC_ADD(&f->out->start, vm);
    else if (strcmp(status, "down") != 0)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: VM status '%s': up or down", status);
    return true;
}

static bool add_vm(struct filler *f, const json_t *o, bool is_proxy, unsigned number)
{
    const char *pattern, *description = in_str(o, "description");
    uint64_t memory = UINT64_C(1) << 30;
    if (!spec_name(o, "VM", &pattern, f->err) || !spec_size(o, "memory", &memory, f->err))
        return false;
    SCOPED_FREE char *name = spec_number_name(pattern, number);
    struct cluster *c = cluster_of(f, o);
    if (!c)
        return false;
    if (model_vm_by_name(&f->e->model, name))
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: two VMs are called '%s'", name);
    if (++f->vm_count > SPEC_VMS_MAX)
        return err_set(f->err, ERR_TOO_LARGE, 0, "spec: more than %d VMs", SPEC_VMS_MAX);
    struct vm *vm = vms_new(f->e, NULL, name, c);
    VEC_ADD(&f->e->model.vms, vm);
    if (number <= 1 && !spec_id(o, vm->id, f->err))
        return false;
    json_decref(vm->config);
    vm->config = vms_default_config(memory);
    if (description)
        out_str(vm->config, "description", description);
    vm->is_proxy = is_proxy;
    vm->seed = f->vm_count;
    vm->loop_devices = spec_bool(o, "loop_devices", false);
    if (is_proxy)
        vm->dev_dir = xasprintf("%s/proxies/%s/dev", f->e->opts.dir, name);
    const json_t *tags = json_object_get(o, "tags");
    for (size_t i = 0; i < json_array_size(tags); i++) {
        const char *tag = json_string_value(json_array_get(tags, i));
        if (tag)
            VEC_ADD(&vm->tags, add_tag(f->e, tag));
    }
    return set_guest(f, vm, o, is_proxy) && add_disks(f, vm, o) && add_nics(f, vm, o) &&
           set_status(f, vm, o);
}

static bool add_vms(struct filler *f, const json_t *o, bool is_proxy)
{
    static const char *const known[] = {
        "name", "count",  "id",    "cluster", "memory",      "description",  "tags", "disks",
        "nics", "status", "guest", "agent",   "writer_rate", "loop_devices", NULL};
    json_int_t count = 1;
    if (!spec_known(o, is_proxy ? "proxy" : "VM", known, f->err))
        return false;
    if (json_object_get(o, "count"))
        count = json_integer_value(json_object_get(o, "count"));
    if (count < 1 || count > SPEC_VMS_MAX)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: count is 1 to %d", SPEC_VMS_MAX);
    for (json_int_t i = 1; i <= count; i++)
        if (!add_vm(f, o, is_proxy, (unsigned)i))
            return false;
    return true;
}

static bool add_proxy_vms(struct filler *f, const json_t *o)
{
    return add_vms(f, o, true);
}

static bool add_plain_vms(struct filler *f, const json_t *o)
{
    return add_vms(f, o, false);
}

/* --- The whole -------------------------------------------------------------------------------- */

typedef bool (*add_fn)(struct filler *f, const json_t *o);

/* Each element of spec[key]; `fallback` (a JSON text) when the key is absent. */
static bool add_each(struct filler *f, const json_t *spec, const char *key, add_fn add,
                     const char *fallback)
{
    json_t *list = json_incref(json_object_get(spec, key));
    if (!list)
        list = json_loads(fallback, 0, NULL);
    bool ok =
        json_is_array(list) || err_set(f->err, ERR_BAD_CONFIG, 0, "spec: '%s' is not a list", key);
    for (size_t i = 0; ok && i < json_array_size(list); i++)
        ok = add(f, json_array_get(list, i)) || err_wrap(f->err, "%s[%zu]", key, i);
    json_decref(list);
    return ok;
}

static bool add_timings(struct filler *f, const json_t *spec)
{
    const json_t *o = json_object_get(spec, "timings");
    const char *profile = in_str(o, "profile");
    if (profile && strcmp(profile, "fast") != 0 && strcmp(profile, "normal") != 0)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: timings.profile: fast or normal");
    timings_set_profile(&f->e->timings, profile && !strcmp(profile, "fast"));
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)o, key, value)
        if (strcmp(key, "profile") != 0 &&
            (!json_is_integer(value) ||
             !timings_set(&f->e->timings, key, json_integer_value(value))))
            return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: bad timing '%s'", key);
    return true;
}

static bool add_settings(struct filler *f, const json_t *spec)
{
    const char *version = in_str(spec, "version");
    json_int_t life_s = json_integer_value(json_object_get(spec, "token_life_s"));
    json_int_t slots = json_integer_value(json_object_get(spec, "pci_slots"));
    if (version && !engine_set_version(f->e, version))
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: version '%s' is not like 4.4.10", version);
    const char *level = in_str(spec, "compatibility");
    if (level) {
        int minor = 0;
        if (strncmp(level, "4.", 2) == 0 && level[2] >= '2' && level[2] <= '8' && !level[3])
            minor = level[2] - '0';
        if (minor == 0)
            return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: compatibility '%s' is not like 4.6",
                           level);
        f->e->level_minor = minor;
    }
    if (life_s < 0 || life_s > 86400 * 365 || slots < 0 || slots > 1000)
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: token_life_s or pci_slots out of range");
    auth_set_life(f->e->auth, life_s * 1000, INT64_C(1800) * 1000);
    auth_set_basic(f->e->auth, spec_bool(spec, "basic_auth", true));
    if (slots > 0)
        f->e->pci_slots = (unsigned)slots;
    const json_t *faults = json_object_get(spec, "faults");
    return !faults || faults_add(f->e->faults, faults, f->err);
}

static bool add_tag_name(struct filler *f, const json_t *o)
{
    if (!json_is_string(o))
        return err_set(f->err, ERR_BAD_CONFIG, 0, "spec: a tag is a string");
    (void)add_tag(f->e, json_string_value(o));
    return true;
}

bool spec_apply(struct engine *e, const json_t *spec, struct spec *ret, struct err *err)
{
    static const char *const known[] = {
        "version",  "users",  "token_life_s",    "basic_auth", "timings",       "data_centers",
        "clusters", "hosts",  "storage_domains", "networks",   "tags",          "proxies",
        "vms",      "faults", "pci_slots",       "comment",    "compatibility", NULL};
    struct filler f = {.e = e, .out = ret, .err = err};
    if (!spec_known(spec, "spec", known, err))
        return false;
    (void)add_tag(e, "root");
    return add_settings(&f, spec) && add_timings(&f, spec) &&
           add_each(&f, spec, "users", add_user, "[{\"name\":\"admin@internal\"}]") &&
           add_each(&f, spec, "data_centers", add_dc, "[{\"name\":\"Default\"}]") &&
           add_each(&f, spec, "clusters", add_cluster, "[{\"name\":\"Default\"}]") &&
           add_each(&f, spec, "hosts", add_host, "[{\"name\":\"host1\"},{\"name\":\"host2\"}]") &&
           add_each(&f, spec, "storage_domains", add_sd, "[{\"name\":\"data1\"}]") &&
           add_each(&f, spec, "networks", add_network, "[{\"name\":\"ovirtmgmt\"}]") &&
           add_each(&f, spec, "tags", add_tag_name, "[]") &&
           add_each(&f, spec, "proxies", add_proxy_vms, "[]") &&
           add_each(&f, spec, "vms", add_plain_vms, "[]");
}

bool spec_load(struct engine *e, const char *path, struct spec *ret, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, path, SPEC_FILE_MAX, &text, err))
        return err_wrap(err, "spec");
    json_error_t at;
    json_t *spec = json_loadb(buf_str(&text), text.len, JSON_REJECT_DUPLICATES, &at);
    if (!spec)
        return err_set(err, ERR_BAD_CONFIG, 0, "%s line %d: %s", path, at.line, at.text);
    bool ok = spec_apply(e, spec, ret, err);
    json_decref(spec);
    return ok;
}
