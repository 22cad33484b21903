/* SPDX-License-Identifier: Apache-2.0 */
/* What a backup only reads: the root, data centres, clusters, hosts, storage domains, networks. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/listing.h"
#include "tests/sandbox/engine/members.h"
#include "tests/sandbox/engine/roles.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/views.h"

static const char *const plain_fields[] = {"name", "id", "status", "description", "comment", NULL};

static json_t *version_of(const struct engine *e)
{
    json_t *v = json_object();
    out_u64(v, "major", (uint64_t)(e->version / 10000));
    out_u64(v, "minor", (uint64_t)(e->version / 100 % 100));
    out_u64(v, "build", (uint64_t)(e->version % 100));
    out_u64(v, "revision", 0);
    SCOPED_FREE char *full = xasprintf("%s-1.el8", e->version_text);
    out_str(v, "full_version", full);
    return v;
}

static json_t *tally(uint64_t active, uint64_t total)
{
    json_t *o = json_object();
    out_u64(o, "active", active);
    out_u64(o, "total", total);
    return o;
}

static json_t *summary_of(const struct engine *e)
{
    uint64_t up = 0;
    const struct vm *vm;
    VEC_EACH(&e->model.vms, vm)
    up += vm->status == VM_UP;
    return json_pack("{s:o, s:o, s:o, s:o}", "hosts", tally(e->model.hosts.len, e->model.hosts.len),
                     "storage_domains", tally(e->model.sds.len, e->model.sds.len), "users",
                     tally(1, 1), "vms", tally(up, e->model.vms.len));
}

void api_root(struct engine *e, struct request *r)
{
    static const char *const rels[] = {
        "vms",      "clusters",       "hosts",         "datacenters", "disks",
        "networks", "storagedomains", "templates",     "tags",        "vnicprofiles",
        "events",   "jobs",           "imagetransfers"};
    json_t *o =
        json_pack("{s:{s:s, s:s, s:s, s:o}}", "product_info", "name", "oVirt Engine", "vendor",
                  "ovirt.org", "instance_id", e->instance_id, "version", version_of(e));
    json_t *special = json_object();
    out_ref(special, "blank_template", MODEL_BLANK_TEMPLATE_ID, "templates/%s",
            MODEL_BLANK_TEMPLATE_ID);
    const struct tag *root = e->model.tags.at[0];
    out_ref(special, "root_tag", root->id, "tags/%s", root->id);
    json_object_set_new(o, "special_objects", special);
    if (!r->filter)
        json_object_set_new(o, "summary", summary_of(e));
    out_date(o, "time", engine_now_ms(e));
    json_object_set_new(o, "authenticated_user", json_pack("{s:s}", "id", ROLES_USER_ID));
    json_t *links = json_array();
    for (size_t i = 0; i < ARRAY_LEN(rels); i++) {
        SCOPED_FREE char *href = xasprintf(API_PREFIX "/%s", rels[i]);
        json_array_append_new(links, json_pack("{s:s, s:s}", "href", href, "rel", rels[i]));
    }
    json_object_set_new(o, "link", links);
    reply_json(r, 200, o);
}

/* {} for sub-collections that are always empty here. */
void empty_list(struct engine *e, struct request *r)
{
    if (!model_vm(&e->model, r->ids[0]))
        reply_empty(r, 404);
    else
        reply_json(r, 200, json_object());
}

static bool name_id(const char *name, const char *id, const char *status, const char *field,
                    search_found_fn found, void *arg)
{
    const struct listing_value v[] = {{"name", name}, {"id", id}, {"status", status}};
    return listing_found(v, ARRAY_LEN(v), field, found, arg);
}

/* --- Data centres --------------------------------------------------------------------------- */

static bool dc_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct data_center *dc = object;
    return name_id(dc->name, dc->id, "up", field, found, arg);
}

static json_t *dc_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    const struct data_center *dc = object;
    json_t *o = out_entity(dc->id, "datacenters/%s", dc->id);
    out_str(o, "name", dc->name);
    out_str(o, "status", "up");
    out_bool(o, "local", false);
    out_str(o, "storage_format", "v5");
    json_t *v = json_object();
    out_u64(v, "major", 4);
    out_u64(v, "minor", (uint64_t)engine_level_minor(e));
    json_object_set_new(o, "version", v);
    out_link(o, "clusters");
    out_link(o, "networks");
    out_link(o, "storagedomains");
    return o;
}

void dcs_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"data_center", plain_fields, dc_field, dc_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.dcs));
}

/* One entity or 404. */
#define REPLY_ONE(find, show)                                                                      \
    do {                                                                                           \
        const void *found_ = (find);                                                               \
        if (found_)                                                                                \
            reply_json(r, 200, show(e, r, found_));                                                \
        else                                                                                       \
            reply_empty(r, 404);                                                                   \
    } while (0)

void dcs_get(struct engine *e, struct request *r)
{
    REPLY_ONE(model_dc(&e->model, r->ids[0]), dc_show);
}

/* --- Storage domains ------------------------------------------------------------------------ */

static bool sd_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct storage_domain *sd = object;
    return name_id(sd->name, sd->id, sd->status, field, found, arg);
}

static json_t *sd_body(const struct engine *e, const struct storage_domain *sd, json_t *o)
{
    uint64_t used = 0, committed = 0;
    const struct disk *d;
    VEC_EACH(&e->model.disks, d)
    if (d->sd == sd) {
        used += disk_actual_bytes(d);
        committed += d->size_bytes;
    }
    if (used > sd->size_bytes)
        used = sd->size_bytes;
    out_str(o, "name", sd->name);
    out_str(o, "type", sd->is_export ? "export" : "data");
    out_u64(o, "available", sd->size_bytes - used);
    out_u64(o, "used", used);
    out_u64(o, "committed", committed);
    out_u64(o, "warning_low_space_indicator", 10);
    out_u64(o, "critical_space_action_blocker", 5);
    out_bool(o, "master", e->model.sds.at[0] == sd);
    out_str(o, "storage_format", "v5");
    json_object_set_new(o, "storage",
                        json_pack("{s:s, s:s, s:s}", "type", sd->storage_type, "address",
                                  "storage.example", "path", "/exports/data"));
    json_t *dc = json_object();
    out_ref(dc, "x", sd->dc->id, "datacenters/%s", sd->dc->id);
    json_object_set_new(o, "data_centers",
                        json_pack("{s:[O]}", "data_center", json_object_get(dc, "x")));
    json_decref(dc);
    out_link(o, "disks");
    out_link(o, "disksnapshots");
    return o;
}

/* At the top level an attached domain shows no status. */
static json_t *sd_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    const struct storage_domain *sd = object;
    return sd_body(e, sd, out_entity(sd->id, "storagedomains/%s", sd->id));
}

static json_t *dc_sd_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    const struct storage_domain *sd = object;
    json_t *o = out_entity(sd->id, "datacenters/%s/storagedomains/%s", sd->dc->id, sd->id);
    (void)sd_body(e, sd, o);
    out_str(o, "status", sd->status);
    return o;
}

void sds_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"storage_domain", plain_fields, sd_field, sd_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.sds));
}

void sds_get(struct engine *e, struct request *r)
{
    REPLY_ONE(model_sd(&e->model, r->ids[0]), sd_show);
}

void dc_sds_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"storage_domain", NULL, sd_field, dc_sd_show};
    const struct data_center *dc = model_dc(&e->model, r->ids[0]);
    if (!dc) {
        reply_empty(r, 404);
        return;
    }
    VEC(struct storage_domain) mine = {0};
    struct storage_domain *sd;
    VEC_EACH(&e->model.sds, sd)
    if (sd->dc == dc)
        VEC_ADD(&mine, sd);
    listing_reply(e, r, &l, LISTING_OF(mine));
    free(mine.at);
}

void dc_sds_get(struct engine *e, struct request *r)
{
    const struct storage_domain *sd = model_sd(&e->model, r->ids[1]);
    REPLY_ONE(sd && sd->dc == model_dc(&e->model, r->ids[0]) ? sd : NULL, dc_sd_show);
}

/* --- Clusters and hosts ---------------------------------------------------------------------- */

static bool cluster_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct cluster *c = object;
    return name_id(c->name, c->id, NULL, field, found, arg);
}

static json_t *cluster_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    const struct cluster *c = object;
    json_t *o = out_entity(c->id, "clusters/%s", c->id);
    out_str(o, "name", c->name);
    out_ref(o, "data_center", c->dc->id, "datacenters/%s", c->dc->id);
    json_t *v = json_object();
    out_u64(v, "major", 4);
    out_u64(v, "minor", (uint64_t)engine_level_minor(e));
    json_object_set_new(o, "version", v);
    json_object_set_new(
        o, "cpu",
        json_pack("{s:s, s:s}", "architecture", "x86_64", "type", "Intel Nehalem Family"));
    if (engine_since(e, 4, 4, 0))
        out_str(o, "bios_type", "q35_sea_bios");
    out_bool(o, "virt_service", true);
    out_bool(o, "gluster_service", false);
    out_link(o, "networks");
    out_link(o, "permissions");
    return o;
}

void clusters_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"cluster", plain_fields, cluster_field, cluster_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.clusters));
}

void clusters_get(struct engine *e, struct request *r)
{
    REPLY_ONE(model_cluster(&e->model, r->ids[0]), cluster_show);
}

static bool host_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct host *h = object;
    return name_id(h->name, h->id, h->down ? "non_operational" : "up", field, found, arg);
}

static json_t *host_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    const struct host *h = object;
    uint64_t active = 0;
    const struct vm *vm;
    VEC_EACH(&e->model.vms, vm)
    active += vm->host == h;
    json_t *o = out_entity(h->id, "hosts/%s", h->id);
    out_str(o, "name", h->name);
    out_str(o, "address", h->address);
    out_str(o, "status", h->down ? "non_operational" : "up");
    out_str(o, "type", "rhel");
    out_ref(o, "cluster", h->cluster->id, "clusters/%s", h->cluster->id);
    json_t *summary = json_object();
    out_u64(summary, "active", active);
    out_u64(summary, "total", active);
    out_u64(summary, "migrating", 0);
    json_object_set_new(o, "summary", summary);
    return o;
}

void hosts_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"host", plain_fields, host_field, host_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.hosts));
}

void hosts_get(struct engine *e, struct request *r)
{
    REPLY_ONE(model_host(&e->model, r->ids[0]), host_show);
}

/* --- Networks, profiles, templates ----------------------------------------------------------- */

static bool network_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct network *n = object;
    return name_id(n->name, n->id, NULL, field, found, arg);
}

static json_t *network_show(struct engine *e, struct request *r, const void *object)
{
    (void)e;
    (void)r;
    const struct network *n = object;
    json_t *o = out_entity(n->id, "networks/%s", n->id);
    out_str(o, "name", n->name);
    out_ref(o, "data_center", n->dc->id, "datacenters/%s", n->dc->id);
    out_u64(o, "mtu", 0);
    out_bool(o, "stp", false);
    out_link(o, "vnicprofiles");
    return o;
}

void networks_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"network", plain_fields, network_field, network_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.networks));
}

void networks_get(struct engine *e, struct request *r)
{
    REPLY_ONE(model_network(&e->model, r->ids[0]), network_show);
}

static json_t *profile_show(struct engine *e, struct request *r, const void *object)
{
    (void)e;
    (void)r;
    const struct vnic_profile *p = object;
    json_t *o = out_entity(p->id, "vnicprofiles/%s", p->id);
    out_str(o, "name", p->name);
    out_ref(o, "network", p->network->id, "networks/%s", p->network->id);
    out_bool(o, "port_mirroring", false);
    json_object_set_new(o, "pass_through", json_pack("{s:s}", "mode", "disabled"));
    return o;
}

void profiles_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"vnic_profile", NULL, NULL, profile_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.profiles));
}

void profiles_get(struct engine *e, struct request *r)
{
    REPLY_ONE(model_profile(&e->model, r->ids[0]), profile_show);
}

static json_t *blank_show(void)
{
    json_t *o = out_entity(MODEL_BLANK_TEMPLATE_ID, "templates/%s", MODEL_BLANK_TEMPLATE_ID);
    out_str(o, "name", "Blank");
    out_str(o, "description", "Blank template");
    out_str(o, "status", "ok");
    return o;
}

void templates_list(struct engine *e, struct request *r)
{
    (void)e;
    reply_json(r, 200, json_pack("{s:[o]}", "template", blank_show()));
}

void templates_get(struct engine *e, struct request *r)
{
    (void)e;
    if (strcmp(r->ids[0], MODEL_BLANK_TEMPLATE_ID) != 0)
        reply_empty(r, 404);
    else
        reply_json(r, 200, blank_show());
}
