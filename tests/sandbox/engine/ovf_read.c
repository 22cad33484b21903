/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/ovf.h"
#include "tests/sandbox/engine/vms.h"

enum { OVF_DISKS_MAX = 256, OVF_NICS_MAX = 256 };

static void ovf_nic_free(struct ovf_nic *n)
{
    free(n->name);
    free(n->network);
    free(n->profile);
    free(n);
}

void ovf_vm_free(struct ovf_vm *o)
{
    if (!o)
        return;
    VEC_DONE(&o->disks, free);
    VEC_DONE(&o->nics, ovf_nic_free);
    free(o->name);
    free(o->description);
    json_decref(o->config);
    free(o);
}

static bool is_named(const xmlNode *n, const char *name)
{
    return n->type == XML_ELEMENT_NODE && !strcmp((const char *)n->name, name);
}

static xmlNode *child(const xmlNode *parent, const char *name)
{
    for (xmlNode *n = parent ? parent->children : NULL; n; n = n->next)
        if (is_named(n, name))
            return n;
    return NULL;
}

/* The text of a child element, "" if there is none. The caller frees. */
static char *text_of(const xmlNode *parent, const char *name)
{
    xmlNode *n = child(parent, name);
    xmlChar *text = n ? xmlNodeGetContent(n) : NULL;
    char *copy = xstrdup(text ? (const char *)text : "");
    xmlFree(text);
    return copy;
}

/* An attribute whatever its namespace, "" if there is none. The caller frees. */
static char *attribute(const xmlNode *n, const char *name)
{
    for (xmlAttr *a = n->properties; a; a = a->next)
        if (!strcmp((const char *)a->name, name)) {
            xmlChar *text = xmlNodeListGetString(n->doc, a->children, 1);
            char *copy = xstrdup(text ? (const char *)text : "");
            xmlFree(text);
            return copy;
        }
    return xstrdup("");
}

/* The child <Section> whose xsi:type ends with `type`. */
static xmlNode *section(const xmlNode *parent, const char *type)
{
    for (xmlNode *n = parent ? parent->children : NULL; n; n = n->next) {
        if (!is_named(n, "Section"))
            continue;
        SCOPED_FREE char *t = attribute(n, "type");
        if (strstr(t, type))
            return n;
    }
    return NULL;
}

static const char *interface_of(const char *ovf_name)
{
    if (!strcmp(ovf_name, "VirtIO_SCSI"))
        return "virtio_scsi";
    if (!strcmp(ovf_name, "VirtIO"))
        return "virtio";
    return !strcmp(ovf_name, "SATA") ? "sata" : "ide";
}

static bool read_disk(struct ovf_vm *o, const xmlNode *n, struct err *err)
{
    SCOPED_FREE char *ref = attribute(n, "fileRef");
    SCOPED_FREE char *interface = attribute(n, "disk-interface");
    SCOPED_FREE char *boot = attribute(n, "boot");
    char *slash = strchr(ref, '/');
    if (slash)
        *slash = '\0';
    if (!slash || !id_is_valid(ref) || !id_is_valid(slash + 1))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "OVF: fileRef is not DISK/IMAGE");
    if (o->disks.len >= OVF_DISKS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "OVF: more than %d disks", OVF_DISKS_MAX);
    struct ovf_disk *d = ALLOC_NEW(struct ovf_disk);
    (void)snprintf(d->disk_id, sizeof d->disk_id, "%s", ref);
    (void)snprintf(d->image_id, sizeof d->image_id, "%s", slash + 1);
    (void)snprintf(d->interface, sizeof d->interface, "%s", interface_of(interface));
    d->bootable = !strcmp(boot, "true");
    VEC_ADD(&o->disks, d);
    return true;
}

static bool read_disks(struct ovf_vm *o, const xmlNode *envelope, struct err *err)
{
    const xmlNode *s = section(envelope, "DiskSection_Type");
    for (xmlNode *n = s ? s->children : NULL; n; n = n->next)
        if (is_named(n, "Disk") && !read_disk(o, n, err))
            return false;
    return true;
}

static bool read_nic(struct ovf_vm *o, const xmlNode *item, struct err *err)
{
    static const char *const models[] = {"rtl8139_virtio", "rtl8139", "e1000", "virtio"};
    SCOPED_FREE char *model = text_of(item, "ResourceSubType");
    SCOPED_FREE char *linked = text_of(item, "Linked");
    SCOPED_FREE char *plugged = text_of(item, "IsPlugged");
    SCOPED_FREE char *mac = text_of(item, "MACAddress");
    unsigned long number = strtoul(model, NULL, 10);
    if (o->nics.len >= OVF_NICS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "OVF: more than %d NICs", OVF_NICS_MAX);
    struct ovf_nic *n = ALLOC_NEW(struct ovf_nic);
    n->name = text_of(item, "Name");
    n->network = text_of(item, "Connection");
    n->profile = text_of(item, "OtherResourceType");
    (void)snprintf(n->interface, sizeof n->interface, "%s", models[number < 4 ? number : 3]);
    (void)snprintf(n->mac, sizeof n->mac, "%s", mac);
    n->linked = strcmp(linked, "false") != 0;
    n->plugged = strcmp(plugged, "false") != 0;
    VEC_ADD(&o->nics, n);
    return true;
}

static void read_cpu(struct ovf_vm *o, const xmlNode *item)
{
    SCOPED_FREE char *sockets = text_of(item, "num_of_sockets");
    SCOPED_FREE char *cores = text_of(item, "cpu_per_socket");
    SCOPED_FREE char *threads = text_of(item, "threads_per_cpu");
    json_t *topology = json_object_get(json_object_get(o->config, "cpu"), "topology");
    out_str(topology, "sockets", sockets[0] ? sockets : "1");
    out_str(topology, "cores", cores[0] ? cores : "1");
    out_str(topology, "threads", threads[0] ? threads : "1");
}

static void set_bytes_of_mib(json_t *o, const char *key, const char *mib)
{
    uint64_t value = strtoull(mib, NULL, 10);
    if (value > 0 && value < UINT64_C(1) << 40)
        out_u64(o, key, value << 20);
}

static bool read_items(struct ovf_vm *o, const xmlNode *content, struct err *err)
{
    const xmlNode *s = section(content, "VirtualHardwareSection_Type");
    for (xmlNode *n = s ? s->children : NULL; n; n = n->next) {
        if (!is_named(n, "Item"))
            continue;
        SCOPED_FREE char *type = text_of(n, "ResourceType");
        SCOPED_FREE char *quantity = text_of(n, "VirtualQuantity");
        if (!strcmp(type, "3"))
            read_cpu(o, n);
        else if (!strcmp(type, "4"))
            set_bytes_of_mib(o->config, "memory", quantity);
        else if (!strcmp(type, "10") && !read_nic(o, n, err))
            return false;
    }
    return true;
}

static void read_content(struct ovf_vm *o, const xmlNode *content)
{
    static const char *const bios[] = {"cluster_default", "i440fx_sea_bios", "q35_sea_bios",
                                       "q35_ovmf", "q35_secure_boot"};
    static const char *const kinds[] = {"desktop", "server", "high_performance"};
    SCOPED_FREE char *min = text_of(content, "MinAllocatedMem");
    SCOPED_FREE char *max = text_of(content, "MaxMemorySizeMb");
    SCOPED_FREE char *bios_type = text_of(content, "BiosType");
    SCOPED_FREE char *kind = text_of(content, "VmType");
    SCOPED_FREE char *os = text_of(section(content, "OperatingSystemSection_Type"), "Description");
    json_t *policy = json_object_get(o->config, "memory_policy");
    unsigned long bios_number = strtoul(bios_type, NULL, 10), kind_number = strtoul(kind, NULL, 10);
    o->name = text_of(content, "Name");
    o->description = text_of(content, "Description");
    out_str(o->config, "description", o->description);
    set_bytes_of_mib(policy, "guaranteed", min);
    set_bytes_of_mib(policy, "max", max);
    if (bios_number < ARRAY_LEN(bios))
        out_str(json_object_get(o->config, "bios"), "type", bios[bios_number]);
    if (kind_number < ARRAY_LEN(kinds))
        out_str(o->config, "type", kinds[kind_number]);
    if (os[0])
        out_str(json_object_get(o->config, "os"), "type", os);
}

static bool read_all(struct ovf_vm *o, const xmlNode *envelope, struct err *err)
{
    const xmlNode *content = child(envelope, "Content");
    const xmlNode *os = section(content, "OperatingSystemSection_Type");
    if (!content || !os)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "OVF: no Content or no operating system section");
    SCOPED_FREE char *id = attribute(os, "id");
    if (!id_is_valid(id))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "OVF: the VM's id is not a UUID");
    (void)snprintf(o->id, sizeof o->id, "%s", id);
    read_content(o, content);
    return read_disks(o, envelope, err) && read_items(o, content, err);
}

struct ovf_vm *ovf_read(const char *xml, struct err *err)
{
    xmlDoc *doc = xmlReadMemory(xml, (int)strlen(xml), "ovf", NULL,
                                XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    const xmlNode *envelope = doc ? xmlDocGetRootElement(doc) : NULL;
    struct ovf_vm *o = ALLOC_NEW(struct ovf_vm);
    o->config = vms_default_config(UINT64_C(1) << 30);
    bool ok = envelope && is_named(envelope, "Envelope");
    if (!ok)
        err_set(err, ERR_BAD_ARGUMENT, 0, "OVF: not an Envelope");
    ok = ok && read_all(o, envelope, err);
    xmlFreeDoc(doc);
    if (!ok) {
        ovf_vm_free(o);
        return NULL;
    }
    return o;
}
