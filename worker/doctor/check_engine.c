/* SPDX-License-Identifier: Apache-2.0 */
/* The engine: reached, trusted, logged in; the proxy VM and its place; what the account may do. */
#include <inttypes.h>
#include <string.h>

#include "worker/doctor/check.h"
#include "worker/ovirt/attachment.h"
#include "worker/ovirt/member.h"

enum {
    CONNECT_MS = 5000,
    REQUEST_MS = 20000,
    BUSY_MS = 3000, /* the other limits of a task's calls are far too long for a look */
    SKEW_WARN_MS = 5000,
    SKEW_FAIL_MS = 300000,
    PCI_DISKS = 20, /* that a VM without a SCSI controller surely takes */
};

static bool is_late(void *ctx, struct err *err)
{
    return doctor_is_late(ctx) && !err_set(err, ERR_TIMEOUT, 0, "the time of the check-up was up");
}

/* --- Contact: one call, judged from several sides --------------------------------------------- */
static void make_contact(struct doctor *d)
{
    struct engine_facts *f = &d->engine;
    const struct worker_conf_engine *c = &d->conf->engine;
    struct engine_conf conf = {.url = c->url,
                               .user = c->user,
                               .password_file = c->password_file,
                               .ca_file = c->ca_file,
                               .insecure = c->insecure_skip_verify,
                               .connect_timeout_ms = CONNECT_MS,
                               .request_timeout_ms = REQUEST_MS,
                               .busy_budget_ms = BUSY_MS};
    struct engine *kept = d->opts.engine ? *d->opts.engine : NULL;
    f->engine = kept ? kept : engine_new(&conf, &f->contact);
    if (!f->engine)
        return;
    if (d->opts.engine)
        *d->opts.engine = f->engine;
    f->session =
        engine_session_new(f->engine, &(struct engine_hooks){.ctx = d, .cancelled = is_late});
    engine_session_set_step(f->session, "doctor");
    f->asked_ms = clock_wall_ms(d->clock);
    (void)engine_get(f->session, "", NULL, &f->root, &f->contact);
    f->answered_ms = clock_wall_ms(d->clock);
}

static enum finding_level fail(struct buf *say, const struct err *err)
{
    (void)buf_printf(say, "%s", err->message);
    return FINDING_FAILURE;
}

static enum finding_level check_reached(struct doctor *d, struct buf *say)
{
    make_contact(d);
    const struct err *e = &d->engine.contact;
    if (e->code == ERR_ENGINE_TLS || e->code == ERR_ENGINE_AUTH || e->code == ERR_ENGINE_DENIED ||
        e->code == ERR_PERMISSION || (e->code == ERR_NOT_FOUND && e->sys != 404) ||
        !err_is_set(e)) {
        (void)buf_printf(say, "%s is reached", d->conf->engine.url);
        return FINDING_OK;
    }
    return fail(say, e);
}

static enum finding_level check_certificate(struct doctor *d, struct buf *say)
{
    if (d->engine.contact.code == ERR_ENGINE_TLS)
        return fail(say, &d->engine.contact);
    if (d->conf->engine.insecure_skip_verify) {
        (void)buf_printf(say, "the engine's certificate is not verified: whoever stands in between "
                              "gets the password");
        return FINDING_WARNING;
    }
    (void)buf_printf(say, "the engine's certificate is trusted%s%s",
                     d->conf->engine.ca_file ? " by " : "",
                     d->conf->engine.ca_file ? d->conf->engine.ca_file : "");
    return FINDING_OK;
}

static enum finding_level check_login(struct doctor *d, struct buf *say)
{
    if (err_is_set(&d->engine.contact))
        return fail(say, &d->engine.contact);
    (void)buf_printf(say, "%s is logged in", d->conf->engine.user);
    return FINDING_OK;
}

static enum finding_level check_version(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct engine_version v;
    if (!engine_read_version(d->engine.session, &v, &err))
        return fail(say, &err);
    (void)buf_printf(say, "engine version %d.%d.%d", v.major, v.minor, v.build);
    if (engine_version_cmp(&v, 4, 3, 0) >= 0)
        return FINDING_OK;
    (void)buf_printf(say, " is older than what is tested (4.3 to 4.5)");
    return FINDING_WARNING;
}

static enum finding_level check_clock(struct doctor *d, struct buf *say)
{
    const struct engine_facts *f = &d->engine;
    int64_t said_ms = member_time_ms_or(f->root, "time", 0);
    int64_t skew_ms = said_ms > f->answered_ms ? said_ms - f->answered_ms
                      : said_ms < f->asked_ms  ? f->asked_ms - said_ms
                                               : 0;
    if (said_ms == 0 || skew_ms <= SKEW_WARN_MS) {
        (void)buf_printf(say, said_ms ? "the engine's clock agrees with this machine's"
                                      : "the engine does not tell its time");
        return FINDING_OK;
    }
    (void)buf_printf(say, "the engine's clock is %" PRId64 " s %s this machine's", skew_ms / 1000,
                     said_ms > f->answered_ms ? "ahead of" : "behind");
    return skew_ms > SKEW_FAIL_MS ? FINDING_FAILURE : FINDING_WARNING;
}

/* --- The proxy VM and its place -------------------------------------------------------------- */
static enum finding_level check_proxy(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct engine_facts *f = &d->engine;
    SCOPED_FREE char *id = ovirt_vm_find(f->session, d->conf->proxy_vm, NULL, &err);
    if (!id || !ovirt_vm_get(f->session, id, &f->proxy, &err)) {
        err_wrap(&err, "proxy_vm '%s'", d->conf->proxy_vm);
        return fail(say, &err);
    }
    const char *status = f->proxy.status ? f->proxy.status : "unknown";
    (void)buf_printf(say, "the proxy VM is %s (%s), status %s", f->proxy.name, id, status);
    return strcmp(status, "up") == 0 ? FINDING_OK : FINDING_FAILURE;
}

/* The engine makes a VM's id the UUID that its firmware shows. */
static enum finding_level check_identity(struct doctor *d, struct buf *say)
{
    SCOPED_FREE char *uuid =
        doctor_has_devices(d) ? doctor_read_file(d, "/sys/class/dmi/id/product_uuid") : NULL;
    if (!uuid) {
        (void)buf_printf(say, "whether this machine is that VM cannot be seen from here");
        return FINDING_OK;
    }
    uuid[strcspn(uuid, "\n")] = '\0';
    bool same = strcasecmp(uuid, d->engine.proxy.id) == 0;
    (void)buf_printf(say,
                     same ? "this machine is that VM"
                          : "this machine has the UUID %.36s: it is not the VM %s, and disks that "
                            "are attached there do not appear here",
                     uuid, d->engine.proxy.name);
    return same ? FINDING_OK : FINDING_FAILURE;
}

static bool find_datacenter(struct engine_facts *f, struct err *err)
{
    struct ovirt_clusters all = {0};
    if (!ovirt_clusters_list(f->session, NULL, &all, err))
        return false;
    const struct ovirt_cluster *own =
        f->proxy.cluster_id ? ovirt_clusters_find(&all, f->proxy.cluster_id) : NULL;
    SCOPED_FREE char *id = own ? xstrdup_or_null(own->datacenter_id) : NULL;
    ovirt_clusters_done(&all);
    if (!id)
        return err_set(err, ERR_NOT_FOUND, 0,
                       "the proxy VM's cluster is in no data center that this account may see");
    return ovirt_datacenter_find(f->session, id, &f->datacenter, err) &&
           ovirt_clusters_list(f->session, id, &f->clusters, err);
}

static enum finding_level check_datacenter(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    if (!find_datacenter(&d->engine, &err))
        return fail(say, &err);
    (void)buf_printf(say, "zone %s is the data center %s with %zu cluster%s", d->conf->zone,
                     d->engine.datacenter.name, d->engine.clusters.count,
                     d->engine.clusters.count == 1 ? "" : "s");
    return FINDING_OK;
}

/* Live merge needs level 3.5, and what version 4 of the API knows has it. */
static enum finding_level check_level(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    json_auto_t *dc = NULL;
    SCOPED_FREE char *path = xasprintf("datacenters/%s", d->engine.datacenter.id);
    if (!engine_get(d->engine.session, path, NULL, &dc, &err))
        return fail(say, &err);
    const json_t *version = member_object(dc, "version");
    uint64_t major = member_u64_or(version, "major", 0), minor = member_u64_or(version, "minor", 0);
    const char *status = member_str(dc, "status");
    (void)buf_printf(say, "data center at compatibility level %" PRIu64 ".%" PRIu64 ", status %s",
                     major, minor, status ? status : "unknown");
    if (status && strcmp(status, "up") != 0)
        return FINDING_FAILURE;
    if (major < 4) {
        (void)buf_printf(say, ": snapshots of running VMs may not be merged at that level");
        return FINDING_FAILURE;
    }
    (void)buf_printf(say, ": live merge works");
    return FINDING_OK;
}

static enum finding_level check_slots(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct ovirt_attachments list = {0};
    if (!ovirt_attachments_list(d->engine.session, d->engine.proxy.id, &list, &err))
        return fail(say, &err);
    size_t used = list.count;
    ovirt_attachments_done(&list);
    if (d->engine.proxy.virtio_scsi) {
        (void)buf_printf(
            say, "%zu disks are attached to the proxy VM; its SCSI controller has room", used);
        return FINDING_OK;
    }
    size_t most = (size_t)(d->conf->slots.backup + d->conf->slots.restore) *
                  (size_t)d->conf->copy.disks_at_once;
    (void)buf_printf(say,
                     "the proxy VM has no VirtIO-SCSI controller: each disk takes a PCI slot; "
                     "%zu disks are attached",
                     used);
    return used + most > PCI_DISKS ? FINDING_FAILURE : FINDING_WARNING;
}

static bool has_tag(const json_t *vm, const char *tag)
{
    size_t i;
    json_t *t;
    json_array_foreach (member_list(vm, "tags", "tag"), i, t) {
        const char *name = member_str(t, "name");
        if (name && strcmp(name, tag) == 0)
            return true;
    }
    return false;
}

static enum finding_level check_tag(struct doctor *d, struct buf *say)
{
    bool is_tagged = has_tag(d->engine.proxy.raw, d->conf->proxy_tag);
    (void)buf_printf(say,
                     is_tagged ? "the proxy VM has the tag %s"
                               : "the proxy VM lacks the tag %s: while its worker is down, backups "
                                 "of all VMs take it along",
                     d->conf->proxy_tag);
    return is_tagged ? FINDING_OK : FINDING_WARNING;
}

/* --- What the account may do ------------------------------------------------------------------ */
static enum finding_level check_roles(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct engine_facts *f = &d->engine;
    if (!ovirt_permits_read(f->session, f->datacenter.id, &f->clusters, &f->permits, &err)) {
        (void)buf_printf(say, "cannot be read, so what they lack is not known: %s", err.message);
        return FINDING_WARNING;
    }
    (void)buf_printf(say, "roles of %s: %s", d->conf->engine.user,
                     f->permits.roles[0] ? f->permits.roles : "none");
    if (f->permits.count == 0)
        return FINDING_FAILURE;
    if (!f->permits.administrative) {
        (void)buf_printf(say, "; all of the type \"user\": the engine shows such an account a "
                              "filtered view without hosts");
        return FINDING_WARNING;
    }
    return FINDING_OK;
}

/* A permit, what for, and where it must be held at least. */
enum purpose { FOR_BACKUP, FOR_RESTORE, FOR_TRANSFER };
static const struct permit_row {
    const char *name; /* as the API calls it */
    enum purpose purpose;
    enum ovirt_permit_scope scope;
} needed[] = {
    {"manipulate_vm_snapshots", FOR_BACKUP, OVIRT_PERMIT_FULLY},
    {"configure_vm_storage", FOR_BACKUP, OVIRT_PERMIT_FULLY},
    {"attach_disk", FOR_BACKUP, OVIRT_PERMIT_FULLY},
    {"create_vm", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"delete_vm", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"edit_vm_properties", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"configure_vm_network", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"import_export_vm", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"create_disk", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"delete_disk", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"attach_disk_profile", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"run_vm", FOR_RESTORE, OVIRT_PERMIT_FULLY},
    {"edit_disk_properties", FOR_TRANSFER, OVIRT_PERMIT_FULLY},
    {"create_disk", FOR_TRANSFER, OVIRT_PERMIT_SYSTEM},
    {"backup_disk", FOR_TRANSFER, OVIRT_PERMIT_FULLY},
};

struct lacks {
    struct buf missing, partly; /* names, joined */
};

static void gather_lacks(const struct ovirt_permits *p, enum purpose purpose, struct lacks *ret)
{
    buf_init(&ret->missing, SAY_BYTES / 2);
    buf_init(&ret->partly, SAY_BYTES / 2);
    for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
        const struct permit_row *n = &needed[i];
        enum ovirt_permit_scope scope = ovirt_permits_scope(p, n->name);
        if (n->purpose != purpose || scope >= n->scope)
            continue;
        struct buf *list = scope == OVIRT_PERMIT_NOWHERE ? &ret->missing : &ret->partly;
        (void)buf_printf(list, "%s%s", list->len ? ", " : "", n->name);
    }
}

static enum finding_level check_permits(struct doctor *d, struct buf *say, enum purpose purpose)
{
    static const char *const purposes[] = {"backups", "restores", "image transfers"};
    const char *what = purposes[purpose];
    if (d->engine.permits.count == 0) {
        (void)buf_printf(say, "not known: see engine.roles");
        return FINDING_SKIPPED;
    }
    struct lacks lacks;
    gather_lacks(&d->engine.permits, purpose, &lacks);
    enum finding_level level = FINDING_OK;
    if (lacks.missing.len) {
        (void)buf_printf(say, "missing for %s: %s", what, buf_str(&lacks.missing));
        level = FINDING_FAILURE;
    } else if (lacks.partly.len) {
        (void)buf_printf(say, "for %s, not held everywhere: %s", what, buf_str(&lacks.partly));
        level = FINDING_WARNING;
    } else {
        (void)buf_printf(say, "all that %s need", what);
    }
    buf_done(&lacks.missing);
    buf_done(&lacks.partly);
    return level;
}

static enum finding_level check_backup_permits(struct doctor *d, struct buf *say)
{
    return check_permits(d, say, FOR_BACKUP);
}

static enum finding_level check_restore_permits(struct doctor *d, struct buf *say)
{
    return check_permits(d, say, FOR_RESTORE);
}

/* Most backups do without. */
static enum finding_level check_transfer_permits(struct doctor *d, struct buf *say)
{
    enum finding_level level = check_permits(d, say, FOR_TRANSFER);
    return level == FINDING_FAILURE ? FINDING_WARNING : level;
}

/* --- Storage domains ------------------------------------------------------------------------- */
static enum finding_level check_storage(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct ovirt_storage_domains list = {0};
    if (!ovirt_storage_domains_list(d->engine.session, d->engine.datacenter.id, &list, &err))
        return fail(say, &err);
    uint64_t reserve = (uint64_t)d->conf->reserve.storage_domain_mib << 20;
    size_t data = 0;
    for (size_t i = 0; i < list.count; i++) {
        const struct ovirt_storage_domain *sd = &list.v[i];
        bool active = !sd->status || strcmp(sd->status, "active") == 0;
        if (!sd->type || strcmp(sd->type, "data") != 0)
            continue;
        data++;
        if (!active)
            (void)buf_printf(say, "%s%s is %s", say->len ? "; " : "", sd->name, sd->status);
        else if (sd->available_bytes < reserve)
            (void)buf_printf(say, "%s%s has %" PRIu64 " MiB free of the reserve of %" PRIu64,
                             say->len ? "; " : "", sd->name, sd->available_bytes >> 20,
                             reserve >> 20);
    }
    ovirt_storage_domains_done(&list);
    if (say->len) {
        (void)buf_printf(say, ": VMs with disks there are not backed up");
        return FINDING_WARNING;
    }
    (void)buf_printf(say, "%zu data storage domains are active, with room for snapshots", data);
    return data ? FINDING_OK : FINDING_WARNING;
}

#define ROLES_ADVICE                                                                               \
    "give the account DataCenterAdmin on the data center and DiskCreator on the system, or a "     \
    "role with these permits: docs/operations.md, section 3"
static const struct check rows[] = {
    {"engine.reached", check_reached,
     "is `engine.url` right (https://HOST/ovirt-engine), the engine up, and its port open from "
     "this "
     "machine?",
     NULL, false},
    {"engine.certificate", check_certificate,
     "fetch the engine's CA into `engine.ca_file`: docs/operations.md, section 3; `engine.url` "
     "must "
     "hold the name that is in the certificate",
     "engine.reached", false},
    {"engine.login", check_login,
     "look at `engine.user` (backup@internal, with Keycloak backup@ovirt@internalsso) and at the "
     "password in `engine.password_file`, which only the worker may read",
     "engine.certificate", false},
    {"engine.version", check_version, "versions 4.2 to 4.x are supported", "engine.login", false},
    {"engine.clock", check_clock, "let both machines follow a time server", "engine.login", false},
    {"engine.proxy", check_proxy,
     "`proxy_vm` must be the name or id of the VM that this worker runs in, as the engine calls it",
     "engine.login", false},
    {"engine.identity", check_identity,
     "set `proxy_vm` to the VM that this worker runs in: `dmidecode -s system-uuid` shows its id",
     "engine.proxy", false},
    {"engine.datacenter", check_datacenter, ROLES_ADVICE, "engine.proxy", false},
    {"engine.level", check_level,
     "activate the data center; raise its compatibility level and that of its clusters",
     "engine.datacenter", false},
    {"engine.slots", check_slots,
     "enable the VirtIO-SCSI controller of the proxy VM (edit VM, resource allocation)",
     "engine.proxy", false},
    {"engine.tag", check_tag, "assign the tag to the proxy VM in the engine", "engine.proxy",
     false},
    {"engine.roles", check_roles, ROLES_ADVICE, "engine.datacenter", false},
    {"engine.permits-backup", check_backup_permits, ROLES_ADVICE, "engine.roles", false},
    {"engine.permits-restore", check_restore_permits, ROLES_ADVICE, "engine.roles", false},
    {"engine.permits-transfer", check_transfer_permits,
     "give the account edit_disk_properties and backup_disk on the data center and DiskCreator on "
     "the system: else large disks are not mapped first, and --path imageio and cbt fail",
     "engine.roles", false},
    {"engine.storage", check_storage,
     "activate it, or make room: while a VM is backed up its snapshot grows there",
     "engine.datacenter", false},
};
const struct check_table checks_of_engine = CHECK_TABLE(rows);
