/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/proxy_vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"

#define APPEND "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check"

enum { UNPLUG_TIMEOUT_MS = 30000, SERIAL_CHARS = 20 };

/* --- The machine ------------------------------------------------------------------------------ */

struct qsd *proxy_vm_start(const char *run_dir, const struct block_guest *guest, struct err *err)
{
    const char *const files[] = {guest->kernel, guest->initrd};
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (access(files[i], R_OK) != 0) {
            err_set_errno(err, errno, "the proxy's guest: '%s'", files[i]);
            return NULL;
        }
    SCOPED_FREE char *pid_path = xasprintf("%s/" QSD_PIDFILE, run_dir);
    SCOPED_FREE char *serial = xasprintf("file:%s/serial.log", run_dir);
    SCOPED_FREE char *people =
        xasprintf("socket,id=people,path=%s/monitor.sock,server=on,wait=off", run_dir);
    const char *fixed[] = {"qemu-system-x86_64", "-machine", "q35", "-accel",
                           "tcg,thread=multi,tb-size=128", "-cpu", "qemu64", "-m", "512", "-smp",
                           "1", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                           "-pidfile", pid_path, "-uuid", guest->uuid, "-kernel", guest->kernel,
                           "-initrd", guest->initrd, "-append", APPEND, "-serial", serial,
                           /* It waits for our connection, which is there (qsd.c). */
                           "-chardev", "socket,id=monitor,fd=3,server=on,wait=on", "-mon",
                           "chardev=monitor,mode=control", "-chardev", people, "-mon",
                           "chardev=people,mode=control", "-netdev", "user,id=net,ipv6=off",
                           "-device", "virtio-net-pci,netdev=net,romfile=", "-device",
                           "virtio-rng-pci", "-device", "virtio-scsi-pci,id=scsi"};
    char ports[PROXY_VM_PORTS][64];
    const char *argv[ARRAY_LEN(fixed) + 2 * PROXY_VM_PORTS + 1];
    size_t n = ARRAY_LEN(fixed);
    memcpy(argv, fixed, sizeof fixed);
    for (unsigned i = 0; i < PROXY_VM_PORTS; i++) {
        (void)snprintf(ports[i], sizeof ports[i], "pcie-root-port,id=port%u,chassis=%u,slot=%u", i,
                       i + 1, i + 1);
        argv[n++] = "-device";
        argv[n++] = ports[i];
    }
    argv[n] = NULL;
    return qsd_start_program(run_dir, argv, err);
}

/* --- Devices ---------------------------------------------------------------------------------- */

static json_t *virtio_disk(const struct proxy_vm_device *d)
{
    SCOPED_FREE char *serial = xstrndup(d->disk_id, SERIAL_CHARS);
    char bus[16];
    (void)snprintf(bus, sizeof bus, "port%u", d->port);
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-blk-pci", "id", d->id, "drive",
                     d->node, "serial", serial, "bus", bus);
}

static json_t *scsi_disk(const struct proxy_vm_device *d)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "scsi-hd", "id", d->id, "drive",
                          d->node, "serial", d->disk_id, "bus", "scsi.0");
    if (d->whole_id)
        json_object_set_new(o, "device_id", json_string(d->disk_id));
    return o;
}

bool proxy_vm_plug(struct qsd *vm, const struct proxy_vm_device *device, struct err *err)
{
    if (device->bus == BLOCK_VIRTIO && device->port >= PROXY_VM_PORTS)
        return err_set(err, ERR_TOO_LARGE, 0, "the proxy has %d slots for virtio disks",
                       PROXY_VM_PORTS);
    qmp_drop_events(vm->qmp, device->id);
    return qmp_call(vm->qmp, "device_add",
                    device->bus == BLOCK_VIRTIO ? virtio_disk(device) : scsi_disk(device), NULL,
                    err);
}

bool proxy_vm_unplug(struct qsd *vm, const char *id, struct err *err)
{
    static const char *const deleted[] = {"DEVICE_DELETED", NULL};
    struct err why = ERR_INIT;
    if (!qmp_call(vm->qmp, "device_del", json_pack("{s:s}", "id", id), NULL, &why)) {
        if (strstr(why.message, "not found"))
            return true; /* an earlier request was answered late */
        if (!strstr(why.message, "in the process of unplug")) {
            *err = why;
            return false;
        }
    }
    struct err late = ERR_INIT;
    json_t *event = qmp_wait_event(vm->qmp, deleted, id, UNPLUG_TIMEOUT_MS, &late);
    bool gone = event != NULL;
    json_decref(event);
    return gone || err_set(err, late.code == ERR_TIMEOUT ? ERR_CONFLICT : late.code, late.sys,
                           "the guest does not let go of the device: %s", late.message);
}
