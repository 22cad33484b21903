/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "proto/base/buf.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/ovf.h"
#include "tests/sandbox/engine/views.h"

enum { OVF_MAX_BYTES = 4 * 1024 * 1024 };

static const char ovf_head[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
    "<ovf:Envelope xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1/\""
    " xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
    "CIM_ResourceAllocationSettingData\""
    " xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
    "CIM_VirtualSystemSettingData\""
    " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" ovf:version=\"4.4.0.0\">";

static void add_text(struct buf *b, const char *text)
{
    for (; text && *text; text++) {
        switch (*text) {
        case '<':
            (void)buf_add(b, "&lt;", 4);
            break;
        case '>':
            (void)buf_add(b, "&gt;", 4);
            break;
        case '&':
            (void)buf_add(b, "&amp;", 5);
            break;
        case '"':
            (void)buf_add(b, "&quot;", 6);
            break;
        default:
            (void)buf_add(b, text, 1);
        }
    }
}

static void add_element(struct buf *b, const char *name, const char *text)
{
    (void)buf_printf(b, "<%s>", name);
    add_text(b, text ? text : "");
    (void)buf_printf(b, "</%s>", name);
}

/* The disk as it is in the snapshot entry. NULL: it is not part of that configuration. */
static const struct volume *volume_for(const struct attachment *a, const char *snapshot_id)
{
    if (a->snapshot_id[0] != '\0' || a->disk->lun)
        return NULL;
    return disk_volume_in(a->disk, snapshot_id);
}

static const char *interface_name(const char *interface)
{
    if (!strcmp(interface, "virtio_scsi"))
        return "VirtIO_SCSI";
    if (!strcmp(interface, "virtio"))
        return "VirtIO";
    return !strcmp(interface, "sata") ? "SATA" : "IDE";
}

static void add_references(struct buf *b, const struct vm *vm, const char *snapshot_id)
{
    (void)buf_printf(b, "<References>");
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        const struct volume *v = volume_for(a, snapshot_id);
        if (v)
            (void)buf_printf(b,
                             "<File ovf:href=\"%s/%s\" ovf:id=\"%s\" ovf:size=\"%" PRIu64
                             "\" ovf:description=\"Active VM\" ovf:disk_storage_type=\"IMAGE\" "
                             "ovf:cinder_volume_type=\"\"></File>",
                             a->disk->id, v->id, v->id, a->disk->size_bytes);
    }
    const struct nic *n;
    VEC_EACH(&vm->nics, n)
    (void)buf_printf(b, "<Nic ovf:id=\"%s\"></Nic>", n->id);
    (void)buf_printf(b, "</References><NetworkSection><Info>List of networks</Info>");
    VEC_EACH(&vm->nics, n)
    if (n->profile) {
        (void)buf_printf(b, "<Network ovf:name=\"");
        add_text(b, n->profile->network->name);
        (void)buf_printf(b, "\"></Network>");
    }
    (void)buf_printf(b, "</NetworkSection>");
}

static void add_disk(struct buf *b, const struct attachment *a, const struct volume *v)
{
    const struct disk *d = a->disk;
    bool raw = v->format == BLOCK_RAW;
    (void)buf_printf(
        b,
        "<Disk ovf:diskId=\"%s\" ovf:size=\"%" PRIu64 "\" ovf:actual_size=\"%" PRIu64
        "\" ovf:vm_snapshot_id=\"%s\" ovf:parentRef=\"\" ovf:fileRef=\"%s/%s\" "
        "ovf:format=\"http://www.vmware.com/specifications/vmdk.html#sparse\" "
        "ovf:volume-format=\"%s\" ovf:volume-type=\"%s\" ovf:disk-interface=\"%s\" "
        "ovf:read-only=\"%s\" ovf:shareable=\"false\" ovf:boot=\"%s\" ovf:pass-discard=\"%s\" "
        "ovf:incremental-backup=\"%s\" ovf:wipe-after-delete=\"%s\" ovf:disk-alias=\"",
        v->id, (d->size_bytes + (UINT64_C(1) << 30) - 1) >> 30,
        (volume_actual_bytes(v) + (UINT64_C(1) << 30) - 1) >> 30, v->snapshot_id, d->id, v->id,
        raw ? "RAW" : "COW", d->sparse ? "Sparse" : "Preallocated", interface_name(a->interface),
        a->read_only ? "true" : "false", a->bootable ? "true" : "false",
        a->pass_discard ? "true" : "false", d->incremental ? "true" : "false",
        d->wipe_after_delete ? "true" : "false");
    add_text(b, d->alias);
    (void)buf_printf(b, "\" ovf:disk-description=\"");
    add_text(b, d->description);
    (void)buf_printf(b, "\"></Disk>");
}

static void add_disk_section(struct buf *b, const struct vm *vm, const char *snapshot_id)
{
    (void)buf_printf(b, "<Section xsi:type=\"ovf:DiskSection_Type\"><Info>List of Virtual "
                        "Disks</Info>");
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        const struct volume *v = volume_for(a, snapshot_id);
        if (v)
            add_disk(b, a, v);
    }
    (void)buf_printf(b, "</Section>");
}

static void add_date(struct buf *b, const char *name, int64_t ms)
{
    char text[40];
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    (void)gmtime_r(&s, &tm);
    (void)strftime(text, sizeof text, "%Y/%m/%d %H:%M:%S", &tm);
    add_element(b, name, text);
}

static unsigned bios_number(const char *type)
{
    static const char *const types[] = {"cluster_default", "i440fx_sea_bios", "q35_sea_bios",
                                        "q35_ovmf", "q35_secure_boot"};
    for (unsigned i = 0; type && i < ARRAY_LEN(types); i++)
        if (!strcmp(types[i], type))
            return i;
    return 0;
}

static void add_content(struct buf *b, const struct engine *e, const struct vm *vm)
{
    const json_t *c = vm->config;
    const char *type = in_str(c, "type");
    char number[32];
    add_element(b, "Name", vm->name);
    add_element(b, "Description", in_str(c, "description"));
    add_element(b, "Comment", in_str(c, "comment"));
    add_date(b, "CreationDate", vm->created_ms);
    add_date(b, "ExportDate", engine_now_ms(e));
    add_element(b, "DeleteProtected", vm->delete_protected ? "true" : "false");
    add_element(b, "SsoMethod", "guest_agent");
    add_element(b, "TimeZone", in_str(json_object_get(c, "time_zone"), "name"));
    add_element(b, "default_boot_sequence", "0");
    (void)snprintf(number, sizeof number, "%u",
                   bios_number(in_str(json_object_get(c, "bios"), "type")));
    add_element(b, "BiosType", number);
    add_element(b, "VmType",
                type && !strcmp(type, "desktop") ? "0" : (type && type[0] == 'h' ? "2" : "1"));
    (void)snprintf(number, sizeof number, "%" PRIu64,
                   in_u64(json_object_get(c, "memory_policy"), "guaranteed", 0) >> 20);
    add_element(b, "MinAllocatedMem", number);
    (void)snprintf(number, sizeof number, "%" PRIu64,
                   in_u64(json_object_get(c, "memory_policy"), "max", 0) >> 20);
    add_element(b, "MaxMemorySizeMb", number);
    add_element(b, "IsStateless", vm->stateless ? "true" : "false");
    add_element(b, "Origin", "3");
    add_element(b, "ClusterName", vm->cluster->name);
    add_element(b, "TemplateId", MODEL_BLANK_TEMPLATE_ID);
    add_element(b, "TemplateName", "Blank");
    add_element(b, "IsInitilized", "true");
    (void)buf_printf(b,
                     "<Section ovf:id=\"%s\" ovf:required=\"false\" "
                     "xsi:type=\"ovf:OperatingSystemSection_Type\"><Info>Guest Operating "
                     "System</Info>",
                     vm->id);
    add_element(b, "Description", in_str(json_object_get(c, "os"), "type"));
    (void)buf_printf(b, "</Section>");
}

static void add_cpu_and_memory(struct buf *b, const struct vm *vm)
{
    const json_t *topology = json_object_get(json_object_get(vm->config, "cpu"), "topology");
    uint64_t sockets = in_u64(topology, "sockets", 1), cores = in_u64(topology, "cores", 1);
    uint64_t threads = in_u64(topology, "threads", 1);
    uint64_t memory_mb = in_u64(vm->config, "memory", 0) >> 20;
    (void)buf_printf(b,
                     "<Info>%" PRIu64 " CPU, %" PRIu64 " Memory</Info><System>"
                     "<vssd:VirtualSystemType>ENGINE 4.4.0.0</vssd:VirtualSystemType></System>",
                     sockets * cores * threads, memory_mb);
    (void)buf_printf(
        b,
        "<Item><rasd:Caption>%" PRIu64 " virtual cpu</rasd:Caption><rasd:Description>Number of "
        "virtual CPU</rasd:Description><rasd:InstanceId>1</rasd:InstanceId>"
        "<rasd:ResourceType>3</rasd:ResourceType><rasd:num_of_sockets>%" PRIu64
        "</rasd:num_of_sockets><rasd:cpu_per_socket>%" PRIu64
        "</rasd:cpu_per_socket><rasd:threads_per_cpu>%" PRIu64
        "</rasd:threads_per_cpu><rasd:VirtualQuantity>%" PRIu64 "</rasd:VirtualQuantity></Item>",
        sockets * cores * threads, sockets, cores, threads, sockets * cores * threads);
    (void)buf_printf(b,
                     "<Item><rasd:Caption>%" PRIu64 " MB of memory</rasd:Caption>"
                     "<rasd:Description>Memory Size</rasd:Description>"
                     "<rasd:InstanceId>2</rasd:InstanceId><rasd:ResourceType>4</rasd:ResourceType>"
                     "<rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits>"
                     "<rasd:VirtualQuantity>%" PRIu64 "</rasd:VirtualQuantity></Item>",
                     memory_mb, memory_mb);
}

static void add_disk_item(struct buf *b, const struct attachment *a, const struct volume *v)
{
    (void)buf_printf(b, "<Item><rasd:Caption>");
    add_text(b, a->disk->alias);
    (void)buf_printf(
        b,
        "</rasd:Caption><rasd:InstanceId>%s</rasd:InstanceId><rasd:ResourceType>17"
        "</rasd:ResourceType><rasd:HostResource>%s/%s</rasd:HostResource>"
        "<rasd:Parent>" MODEL_BLANK_TEMPLATE_ID
        "</rasd:Parent><rasd:Template>" MODEL_BLANK_TEMPLATE_ID
        "</rasd:Template><rasd:ApplicationList></rasd:ApplicationList><rasd:StorageId>%s"
        "</rasd:StorageId><rasd:StoragePoolId>%s</rasd:StoragePoolId><Type>disk</Type>"
        "<Device>disk</Device><rasd:Address></rasd:Address><BootOrder>%d</BootOrder>"
        "<IsPlugged>%s</IsPlugged><IsReadOnly>%s</IsReadOnly><Alias></Alias></Item>",
        v->id, a->disk->id, v->id, a->disk->sd->id, a->disk->sd->dc->id, a->bootable ? 1 : 0,
        a->active ? "true" : "false", a->read_only ? "true" : "false");
}

static unsigned nic_model(const char *interface)
{
    static const char *const models[] = {"rtl8139_virtio", "rtl8139", "e1000", "virtio"};
    for (unsigned i = 0; i < ARRAY_LEN(models); i++)
        if (!strcmp(models[i], interface))
            return i;
    return 3;
}

static void add_nic_item(struct buf *b, const struct nic *n)
{
    const char *network = n->profile ? n->profile->network->name : "";
    (void)buf_printf(b, "<Item><rasd:Caption>Ethernet adapter on ");
    add_text(b, network);
    (void)buf_printf(b,
                     "</rasd:Caption><rasd:InstanceId>%s</rasd:InstanceId><rasd:ResourceType>10"
                     "</rasd:ResourceType>",
                     n->id);
    add_element(b, "rasd:OtherResourceType", n->profile ? n->profile->name : "");
    (void)buf_printf(b, "<rasd:ResourceSubType>%u</rasd:ResourceSubType>", nic_model(n->interface));
    add_element(b, "rasd:Connection", network);
    add_element(b, "rasd:Linked", n->linked ? "true" : "false");
    add_element(b, "rasd:Name", n->name);
    add_element(b, "rasd:ElementName", n->name);
    add_element(b, "rasd:MACAddress", n->mac);
    (void)buf_printf(b, "<rasd:speed>10000</rasd:speed><Type>interface</Type><Device>bridge"
                        "</Device><rasd:Address></rasd:Address><BootOrder>0</BootOrder>");
    add_element(b, "IsPlugged", n->plugged ? "true" : "false");
    (void)buf_printf(b, "<IsReadOnly>false</IsReadOnly><Alias></Alias></Item>");
}

char *ovf_write(const struct engine *e, const struct vm *vm, const char *snapshot_id)
{
    SCOPED_BUF struct buf b;
    buf_init(&b, OVF_MAX_BYTES);
    (void)buf_add(&b, ovf_head, sizeof ovf_head - 1);
    add_references(&b, vm, snapshot_id);
    add_disk_section(&b, vm, snapshot_id);
    (void)buf_printf(&b, "<Content ovf:id=\"out\" xsi:type=\"ovf:VirtualSystem_Type\">");
    add_content(&b, e, vm);
    (void)buf_printf(&b, "<Section xsi:type=\"ovf:VirtualHardwareSection_Type\">");
    add_cpu_and_memory(&b, vm);
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        const struct volume *v = volume_for(a, snapshot_id);
        if (v)
            add_disk_item(&b, a, v);
    }
    const struct nic *n;
    VEC_EACH(&vm->nics, n)
    add_nic_item(&b, n);
    (void)buf_printf(&b, "</Section></Content></ovf:Envelope>");
    return buf_take(&b);
}
