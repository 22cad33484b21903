/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>

#include "tests/sandbox/engine/spec.h"

/* Small disks of many kinds, so that the whole starts in seconds. */
static const struct {
    unsigned size_mib;
    const char *format, *interface;
    double fill;
    unsigned count;
} sample_kinds[] = {
    {64, "raw", "virtio_scsi", 0.1, 1},   {128, "qcow2", "virtio", 0.5, 1},
    {64, "qcow2", "virtio_scsi", 0.9, 2}, {256, "raw", "virtio_scsi", 0.05, 1},
    {96, "raw", "virtio", 0.95, 1},       {64, "qcow2", "virtio_scsi", 0.3, 3},
};

char *spec_sample(unsigned vms)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < vms; i++) {
        size_t kind = i % ARRAY_LEN(sample_kinds);
        SCOPED_FREE char *name = xasprintf("vm%03u", i + 1);
        json_t *disks = json_array();
        for (unsigned k = 0; k < sample_kinds[kind].count; k++) {
            SCOPED_FREE char *size = xasprintf("%uMiB", sample_kinds[kind].size_mib);
            json_array_append_new(disks, json_pack("{s:s, s:s, s:s, s:f, s:b}", "size", size,
                                                   "format", sample_kinds[kind].format, "interface",
                                                   sample_kinds[kind].interface, "fill",
                                                   sample_kinds[kind].fill, "bootable", k == 0));
        }
        json_array_append_new(list,
                              json_pack("{s:s, s:[s], s:o, s:[{s:s, s:s}], s:i}", "name", name,
                                        "tags", "backup", "disks", disks, "nics", "name", "nic1",
                                        "profile", "ovirtmgmt", "writer_rate", vms > 50 ? 2 : 20));
    }
    json_t *spec = json_pack("{s:{s:s}, s:[{s:s, s:i}], s:o}", "timings", "profile", "fast",
                             "proxies", "name", "proxy%d", "count", 3, "vms", list);
    char *text = json_dumps(spec, JSON_INDENT(2) | JSON_REAL_PRECISION(3));
    json_decref(spec);
    return text;
}
